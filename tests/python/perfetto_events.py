"""Decodes a Perfetto trace by Perfetto's own bindings and prints what is in it as JSON.

    python3 perfetto_events.py FILE
"""

import collections
import json
import sys

from google.protobuf import descriptor_pb2, unknown_fields
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

trace = pb.Trace()
trace.ParseFromString(open(sys.argv[1], "rb").read())

generic = {}
events = collections.Counter()
switches, first_generic, slices, losses = [], {}, [], []
tracks, open_slices, spans, flows = {}, {}, [], collections.defaultdict(list)
lost_bundles = 0
threads, processes, machines, dropped = {}, {}, set(), {}
for packet in trace.packet:
    machines.add(packet.machine_id)
    bundle = packet.ftrace_events
    lost_bundles += bundle.lost_events
    for described in bundle.generic_event_descriptors:
        message = descriptor_pb2.DescriptorProto.FromString(described.event_descriptor)
        generic[described.field_id] = (f"{described.group_name}:{message.name}", {f.number: f.name for f in message.field})
    for event in bundle.event:
        name = event.WhichOneof("event")
        if name is None:
            # A generic event is a field that the bindings do not know.
            unknown = unknown_fields.UnknownFieldSet(event)
            field = [u for u in unknown if u.field_number >= 65536][0]
            name, fields = generic[field.field_number]
            first_generic.setdefault(name, sorted(fields.values()))
        elif name == "sched_switch":
            s = event.sched_switch
            switches.append([event.timestamp, bundle.cpu, s.prev_comm, s.prev_pid, s.prev_state, s.next_comm, s.next_pid])
        events[name] += 1
    if packet.HasField("track_descriptor"):
        track = packet.track_descriptor
        tracks[track.uuid] = [track.name, track.thread.tid]
    if packet.HasField("track_event"):
        event = packet.track_event
        track, tid = tracks[event.track_uuid]
        for flow in [*event.flow_ids, *event.terminating_flow_ids]:
            flows[flow].append([packet.timestamp, tid])
        if track.startswith("span "):
            # Written span by span, in the order of their ends.
            if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
                values = {a.name: a.uint_value or a.int_value or a.string_value for a in event.debug_annotations}
                open_slices[event.track_uuid] = [track, packet.timestamp, event.name, values]
            else:
                track, begin, name, values = open_slices.pop(event.track_uuid)
                spans.append([track, begin, packet.timestamp, event.track_uuid, name, values])
        elif event.flow_ids or event.terminating_flow_ids:
            pass
        elif event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            slices.append([packet.timestamp, event.name])
        elif event.type == pb.TrackEvent.TYPE_INSTANT:
            losses.append(event.name)
    for thread in packet.process_tree.threads:
        threads[thread.tid] = [thread.tgid, thread.name]
    for cpu in packet.ftrace_stats.cpu_stats:
        dropped[cpu.cpu] = cpu.dropped_events
    if packet.HasField("clock_snapshot"):
        assert packet.clock_snapshot.primary_trace_clock == 6

json.dump(
    {
        "events": events,
        "generic": first_generic,
        "switches": switches,
        "slices": slices,
        "losses": losses,
        "spans": spans,
        "flows": flows,
        "lost_bundles": lost_bundles,
        "threads": threads,
        "machines": sorted(machines),
        "dropped": dropped,
    },
    sys.stdout,
)
