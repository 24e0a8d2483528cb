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
    if packet.HasField("track_event"):
        event = packet.track_event
        if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
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
        "lost_bundles": lost_bundles,
        "threads": threads,
        "machines": sorted(machines),
        "dropped": dropped,
    },
    sys.stdout,
)
