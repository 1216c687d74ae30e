import Engine
import Replay
import Wire

extension ReplayBuffer.Reading {
    /// Everything as Prometheus' text, in an order that does not change.
    func exposition(_ store: ResilientStore.Statistics, degradedRooms: Int) -> String {
        var text = Exposition()
        writeOperations(&text)
        writeMemory(&text)
        writeStore(&text, store, degradedRooms: degradedRooms)
        return text.text
    }

    private func writeOperations(_ text: inout Exposition) {
        text.single("reconnect_replay_published_total", .counter, "Messages that were numbered and kept.", published)
        text.single("reconnect_replay_duplicates_total", .counter, "Messages whose key was used before.", duplicates)
        text.single("reconnect_replay_joins_total", .counter, "Connections that began.", joins)
        text.family("reconnect_replay_recoveries_total", .counter, "Joins and recoveries, by verdict and reason.")
        text.sample(fresh, ("verdict", "fresh"), ("reason", "none"))
        text.sample(recovered, ("verdict", "recovered"), ("reason", "none"))
        text.sample(recoveredEmpty, ("verdict", "recovered_empty"), ("reason", "none"))
        for reason in LossReason.allCases {
            text.sample(lost[Int(reason.rawValue)], ("verdict", "lost"), ("reason", reason.label))
        }
        text.single("reconnect_replay_replayed_messages_total", .counter, "Messages replayed.", replayed)
        text.single("reconnect_replay_live_messages_total", .counter, "Live messages handed to the host.", live)
        text.single(
            "reconnect_replay_gaps_total", .counter, "How often live messages of a room may have been missing.", gaps)
        text.single(
            "reconnect_replay_throttled_total", .counter, "Joins and recoveries that were told to come later.",
            throttled)
        text.single(
            "reconnect_replay_unreadable_total", .counter, "Compressed messages that could not be restored.", unreadable
        )
    }

    private func writeMemory(_ text: inout Exposition) {
        text.single("reconnect_replay_rooms", .gauge, "Rooms in memory now.", rooms)
        text.single("reconnect_replay_members", .gauge, "Users in memory now.", members)
        text.single("reconnect_replay_held_bytes", .gauge, "Memory of messages now, overhead included.", bytesHeld)
        text.single("reconnect_replay_events_queued", .gauge, "Events that the host has not taken yet.", eventsQueued)
        text.single(
            "reconnect_replay_batches_held", .gauge, "Batches of events that the host has not given back.", batches)
    }

    private func writeStore(_ text: inout Exposition, _ statistics: ResilientStore.Statistics, degradedRooms: Int) {
        text.family("reconnect_replay_store_state", .gauge, "1 for what the store is now, 0 for the others.")
        for (number, name) in ["away", "present", "probed"].enumerated() {
            text.sample(Int(store) == number ? 1 : 0, ("state", name))
        }
        text.single(
            "reconnect_replay_store_operations_total", .counter, "Operations given to the store.", storeOperations)
        text.single(
            "reconnect_replay_store_failures_total", .counter, "Operations that the store failed or answered too late.",
            storeFailures)
        text.single(
            "reconnect_replay_without_store_total", .counter, "Operations done without the store, or not at all.",
            withoutStore)
        text.family("reconnect_replay_store_latency_seconds", .histogram, "Time the store took to answer.")
        text.histogram(
            bounds: ResilientStore.Statistics.latencyLimits, counts: statistics.latencies, sum: statistics.latencySum)
        text.single("reconnect_replay_degraded_rooms", .gauge, "Rooms that are numbered here now.", degradedRooms)
    }
}

extension LossReason {
    fileprivate var label: String {
        switch self {
        case .epoch: "epoch"
        case .trimmed: "trimmed"
        case .expired: "expired"
        case .limit: "limit"
        case .store: "store"
        case .degraded: "degraded"
        }
    }
}
