import Replay
import Testing
import Wire

@Suite struct RecoveryTable {
    @Test(arguments: RecoveryCase.all)
    func holdsInMemory(_ row: RecoveryCase) throws {
        let store = MemoryStore(configuration: row.configuration, random: SeededGenerator(seed: 1))
        var now = Instant.at(1)
        try row.check(
            StoreDriver(
                perform: { operation in
                    guard let outcome = store.submit(operation, id: OperationID(0), now: now) else {
                        throw Refusal.unavailable
                    }
                    return outcome
                }, pass: { now = now + $0 }))
    }

    /// The same answers where they come later, through deadlines and breaker.
    @Test(arguments: RecoveryCase.all)
    func holdsForAStoreThatAnswersLater(_ row: RecoveryCase) throws {
        let server = Server(rooms: row.configuration)
        server.remote.delay = .zero
        try row.check(
            StoreDriver(
                perform: { operation in
                    guard let outcome = server.perform(operation, step: .zero) else { throw Refusal.unavailable }
                    return outcome
                }, pass: { server.pass($0) }))
    }
}
