"""Writes events.txt: the ftrace events that Perfetto knows, from the package `perfetto` of PyPI (Apache-2.0).

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install perfetto==0.59.1
    /tmp/venv/bin/python events.py > events.txt

A line is an event: its name, its number in FtraceEvent, and NAME:NUMBER:TYPE of each field; s is a text, a `*` means several.
"""

from google.protobuf.descriptor import FieldDescriptor as F
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

TYPES = {
    F.TYPE_STRING: "s", F.TYPE_BYTES: "s", F.TYPE_BOOL: "n", F.TYPE_ENUM: "n",
    F.TYPE_INT32: "n", F.TYPE_INT64: "n", F.TYPE_UINT32: "n", F.TYPE_UINT64: "n",
}
# They are no tracepoints.
LEFT_OUT = {"generic", "kprobe_event", "print"}

for event in sorted(pb.FtraceEvent.DESCRIPTOR.oneofs[0].fields, key=lambda field: field.name):
    if event.name not in LEFT_OUT:
        fields = [f for f in event.message_type.fields if f.type in TYPES]
        columns = [f"{f.name}:{f.number}:{TYPES[f.type]}{'*' if f.is_repeated else ''}" for f in fields]
        print(event.name, event.number, *columns)
