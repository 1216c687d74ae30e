#!/usr/bin/env python3
"""50 missed messages, from the join to the one text that goes to the client, through the Python binding.

    missed.py REPEATS STORE      a store as in ReplayConfig, or "memory"

Prints a line of JSON with all times.
"""

import gc
import json
import sys
import time

import libreconnect

COUNT = 50


def main():
    repeats, store = int(sys.argv[1]), sys.argv[2]
    config = libreconnect.ReplayConfig(store=None if store == "memory" else store, store_timeout=2)
    times = []
    with libreconnect.ReplayBuffer(config) as buffer:
        deadline = time.monotonic() + 10
        while store != "memory" and buffer.statistics().store != libreconnect.StoreState.PRESENT:
            buffer.poll(0.01)
            if time.monotonic() > deadline:
                sys.exit("the store did not come")
        buffer.join("room", "writer")
        joined = buffer.join("room", "reader")
        gc.collect()
        for _ in range(repeats):
            buffer.drop("room", "reader", joined.generation)
            buffer.publish_many(
                libreconnect.Publication("room", json.dumps({"type": "chat", "number": i, "text": "m" * 150}), "writer")
                for i in range(COUNT)
            )
            start = time.perf_counter()
            joined = buffer.join("room", "reader", joined.position, joined.token)
            messages = ",".join([message.data for message in joined.messages])
            text = f'{{"type":"replay","verdict":"{joined.verdict.name}","position":"{joined.position}","messages":[{messages}]}}'
            times.append((time.perf_counter() - start) * 1000)
            if len(json.loads(text)["messages"]) != COUNT or not joined.recovered:
                sys.exit(f"not all messages came: {joined!r}")
    print(json.dumps({"ms": times}))


if __name__ == "__main__":
    main()
