import Replay
import Storage

/// Outcomes on their way from the client's thread to the store's.
final class FinishedOperations: Sendable {
    private struct State: Sendable {
        var outcomes: [(OperationID, Outcome)] = []
        var head = 0
        var lastError: RedisFailure?
    }

    private let state = Guarded(State())
    private let onOutcome: @Sendable () -> Void

    init(_ onOutcome: @escaping @Sendable () -> Void) { self.onOutcome = onOutcome }

    func append(
        _ id: OperationID, _ result: Result<RedisReply, RedisFailure>, _ read: (RedisReply) -> Outcome?
    ) {
        var outcome = Outcome.refused(.unavailable)
        var error: RedisFailure?
        switch result {
        case .success(let reply): outcome = read(reply) ?? RedisReplayReply.refusal(reply)
        case .failure(let failure): error = failure
        }
        append(id, outcome, error)
    }

    func append(_ id: OperationID, _ outcome: Outcome, _ error: RedisFailure? = nil) {
        let isFirst = state.withLock { state in
            if let error { state.lastError = error }
            let isFirst = state.head == state.outcomes.count
            state.outcomes.append((id, outcome))
            return isFirst
        }
        if isFirst { onOutcome() }
    }

    func popFirst() -> (OperationID, Outcome)? {
        state.withLock { state in
            guard state.head < state.outcomes.count else { return nil }
            let next = state.outcomes[state.head]
            state.head &+= 1
            if state.head == state.outcomes.count {
                state.outcomes.removeAll(keepingCapacity: state.head <= 1_024)
                state.head = 0
            } else if state.head >= 1_024, state.head &* 2 >= state.outcomes.count {
                state.outcomes.removeFirst(state.head)
                state.head = 0
            }
            return next
        }
    }

    var lastError: RedisFailure? { state.withLock { $0.lastError } }
}
