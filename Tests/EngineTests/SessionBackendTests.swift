import CSystem
import Foundation
import Reload
import Testing
import Wire

@testable import Engine

/// What the loop does with a store in a database, and nothing else.
private final class StoredSessions {
    let store: CachingStore
    let sessions: Sessions
    private let backend: SessionBackend
    private let inbox = Inbound()

    /// Filled by the database's thread.
    final class Inbound: @unchecked Sendable {
        private let condition = NSCondition()
        private var completions: [SessionBackend.Completion] = []
        private var states: [SessionBackend.State] = []

        func push(_ completion: SessionBackend.Completion) { change { completions.append(completion) } }
        func push(_ state: SessionBackend.State) { change { states.append(state) } }

        private func change(_ body: () -> Void) {
            condition.lock()
            body()
            condition.broadcast()
            condition.unlock()
        }

        /// What has come; nil if nothing comes for far too long.
        func take() -> ([SessionBackend.Completion], [SessionBackend.State])? {
            condition.lock()
            defer { condition.unlock() }
            let limit = Date(timeIntervalSinceNow: 30)
            while completions.isEmpty, states.isEmpty {
                guard condition.wait(until: limit) else { return nil }
            }
            defer {
                completions = []
                states = []
            }
            return (completions, states)
        }
    }

    private(set) var lastState: SessionBackend.State?

    init(_ text: String) throws {
        var random = SystemRandomNumberGenerator()
        store = CachingStore(
            unixOffset: .nanoseconds(cs_unix_ns() - cs_monotonic_ns()), using: &random)
        sessions = Sessions(store: store, random: random)
        sessions.configuration.lookupTimeout = .seconds(20)
        let inbox = inbox
        backend = try SessionBackend.open(
            text, timeout: .seconds(20), onCompletion: { inbox.push($0) }, onState: { inbox.push($0) })
    }

    deinit { backend.close() }

    var now: Instant { Instant(nanoseconds: cs_monotonic_ns()) }

    /// Goes on until `isDone`.
    func run(until isDone: () -> Bool) throws {
        backend.pump(store, now: now)
        while !isDone() {
            let (completions, states) = try #require(inbox.take(), "nothing came")
            for state in states {
                lastState = state
                store.isAvailable = state == .up
            }
            for completion in completions { store.complete(completion.id, with: completion.answer, now: now) }
            backend.pump(store, now: now)
        }
    }

    func decide(_ token: String?, _ fingerprint: ClientFingerprint) throws -> Decision {
        var decision: Decision?
        switch sessions.decide(token: token, fingerprints: [fingerprint], now: now) {
        case .decided(let decided): return decided
        case .pending(let id):
            try run {
                while let (decided, found) = sessions.pollDecision(now: now) { if decided == id { decision = found } }
                return decision != nil
            }
        }
        return try #require(decision)
    }
}

@Suite struct SessionBackends {
    @Test func bringBackSessionsFromAFile() throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(at: directory) }
        let text = "sqlite:" + directory.appendingPathComponent("sessions.db").path
        let fingerprint = try #require(ClientFingerprint(digest: Array(repeating: 7, count: 32)))
        var token = ""
        do {
            let before = try StoredSessions(text)
            try before.run { before.store.isAvailable }
            let decision = try before.decide(nil, fingerprint)
            token = decision.grant.token.text
            _ = before.sessions.connected(
                decision.grant, peer: 1, fingerprint: fingerprint, address: SocketAddress(ip: .anyIPv6, port: 9),
                candidateType: .host, now: before.now)
            // Handed over; closing finishes it.
            try before.run { before.store.counters.saves == 1 }
        }
        let after = try StoredSessions(text)
        try after.run { after.store.isAvailable }
        let back = try after.decide(token, fingerprint)
        #expect(back.mode == .fast)
        #expect(back.session?.connectionCount == 1)
        let other = try #require(ClientFingerprint(digest: Array(repeating: 8, count: 32)))
        #expect(try after.decide(token, other).reason == .otherFingerprint)
        #expect(try after.decide("session-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", fingerprint).reason == .unknown)
        #expect(after.lastState == .up)
    }

    @Test func aServerThatIsAwayMeansNormalMode() throws {
        let away = try StoredSessions("redis://127.0.0.1:1")
        try away.run { away.lastState != nil }
        guard case .down = away.lastState else {
            Issue.record("up")
            return
        }
        let fingerprint = try #require(ClientFingerprint(digest: Array(repeating: 7, count: 32)))
        let decision = try away.decide("session-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", fingerprint)
        #expect(decision.reason == .storeUnavailable)
    }

    @Test(arguments: ["", "sqlite:", "memory", "redis://", "http://u:hunter2@x", "redis://u:hunter2@h:x"])
    func textsThatNameNothingAreRefused(_ text: String) throws {
        do {
            _ = try StoredSessions(text)
            Issue.record("opened \(text)")
        } catch let failure as Failure {
            #expect(failure.status == .invalidArgument)
            #expect(failure.detail.hasPrefix("session_store: "))
            #expect(!failure.detail.contains("hunter2"))
        }
    }
}
