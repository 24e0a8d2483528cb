"""Holds `relayd print --json` (standard input) against what babeltrace2 reads from the same directory, field by field.

    relayd print --json DIR | python3 babeltrace.py DIR

Prints how many events of how many kinds were equal; fails at the first that is not. Each CPU's events are compared in their order: across
CPUs, events of one nanosecond have none.
"""

import collections
import json
import sys

import bt2


def plain(value):
    """A field of babeltrace2 as JSON has it."""
    if isinstance(value, bt2._StringFieldConst):
        return str(value)
    if isinstance(value, bt2._ArrayFieldConst):
        elements = [plain(element) for element in value]
        return elements
    if isinstance(value, bt2._StructureFieldConst):
        return {name: plain(value[name]) for name in value}
    return int(value)


def main():
    ours = collections.defaultdict(collections.deque)
    for line in sys.stdin:
        event = json.loads(line)
        if "event" in event:
            ours[event["cpu"]].append(event)
    names = collections.Counter()
    for message in bt2.TraceCollectionMessageIterator(sys.argv[1]):
        if type(message) is not bt2._EventMessageConst:
            continue
        event = message.event
        own = ours[int(event.packet.context_field["cpu_id"])].popleft()
        context = event.specific_context_field or event.common_context_field
        seen = {
            "time": message.default_clock_snapshot.value,
            "event": event.name,
            "tid": int(context["tid"]),
            "pid": int(context["pid"]),
        }
        for key, value in seen.items():
            assert own[key] == value, f"{key}: babeltrace2 has {value}, relayd {own}"
        for key in ("uid", "cgroup"):
            if key in context:
                assert own[key] == int(context[key]), f"{key}: {own}"
        if "comm" in context:
            assert own["comm"] == str(context["comm"]), f"comm: babeltrace2 has {context['comm']}, relayd {own}"
        if "kstack" in context:
            stack = [int(address) for address in context["kstack"]]
            assert [frame["address"] for frame in own.get("kstack", [])] == stack, own
        fields = event.payload_field
        # What the compiler put between fields, and where a field's data are, is no field.
        theirs = {name for name in fields if not name.startswith("_gap_") and not name.endswith("_loc")}
        assert set(own["fields"]) == theirs, f"babeltrace2 has {sorted(theirs)}, relayd {own}"
        for name in theirs:
            value = plain(fields[name])
            if isinstance(own["fields"][name], str) and isinstance(value, list):
                value = bytes(value).split(b"\0")[0].decode(errors="replace")
            assert own["fields"][name] == value, f"{name}: babeltrace2 has {value!r}, relayd {own}"
        names[event.name] += 1
    left = sum(len(events) for events in ours.values())
    assert left == 0, f"relayd has {left} more events than babeltrace2"
    print(sum(names.values()), len(names))


main()
