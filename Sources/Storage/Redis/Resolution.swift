import CSystem

/// A look-up of a name, on a thread of its own: the system's resolver may take its time, and nobody waits for it.
final class Resolution: Sendable {
    enum Answer: Sendable {
        case endpoints([cs_endpoint])
        case failed(String)
    }

    private let answer = Guarded<Answer?>(nil)

    /// `wake` is signalled when there is an answer.
    init(host: String, port: UInt16, wake: WakeDescriptor) {
        if case .endpoints(let found) = Self.resolve(host, port, isNumeric: true) {
            answer.withLock { $0 = .endpoints(found) }
            return
        }
        begin(wake) { Self.resolve(host, port, isNumeric: false) }
    }

    var result: Answer? { answer.withLock { $0 } }

    /// Asks sentinels for the master's address.
    init(_ question: SentinelQuestion, wake: WakeDescriptor) {
        begin(wake) { question.ask() }
    }

    private func begin(_ wake: WakeDescriptor, _ find: @escaping @Sendable () -> Answer) {
        let worker = Worker { [self] in
            let found = find()
            answer.withLock { $0 = found }
            wake.signal()
        }
        guard let worker else {
            answer.withLock { $0 = .failed("no thread") }
            return
        }
        worker.detach()
    }

    static func resolve(_ host: String, _ port: UInt16, isNumeric: Bool) -> Answer {
        var endpoints = [cs_endpoint](repeating: cs_endpoint(), count: 8)
        let count = unsafe cs_resolve_endpoints(host, port, isNumeric ? 1 : 0, &endpoints, Int32(endpoints.count))
        guard count >= 0 else {
            return .failed(unsafe String(cString: cs_name_failure_text(-count - Int32(CS_NAME_FAILURE))))
        }
        guard count > 0 else { return .failed("no address") }
        return .endpoints(Array(endpoints.prefix(Int(count))))
    }
}
