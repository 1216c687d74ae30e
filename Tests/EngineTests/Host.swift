import DTLS
import Foundation
import Testing
import Wire

@testable import Engine

/// What a test waited for in vain.
struct Missing: Error, CustomStringConvertible {
    var description: String
}

/// A host program: an engine, and the events that it took and nobody has looked at yet.
final class Host {
    let engine: Engine
    private var pending: [Event] = []
    /// False: batches stay with the host until ``release()``.
    var releasesAtOnce = true
    private var held: [UInt64] = []

    init(_ configure: (inout Configuration) -> Void = { _ in }) throws {
        var configuration = Configuration()
        configuration.addresses = [IPAddress("127.0.0.1")!]
        configuration.logLevel = nil
        configure(&configuration)
        engine = try Engine.create(configuration)
    }

    deinit { _ = engine.destroy() }

    func take(milliseconds: Int32) throws {
        let (status, batch, events) = engine.poll(max: 256, milliseconds: milliseconds)
        guard status == .ok else { throw Missing(description: "poll: \(status)") }
        guard !events.isEmpty else { return }
        pending += events
        if releasesAtOnce { #expect(engine.release(batch) == .ok) } else { held.append(batch) }
    }

    func release() {
        for batch in held { #expect(engine.release(batch) == .ok) }
        held = []
    }

    /// Takes the first event that fits, waiting for it.
    @discardableResult
    func next(_ kind: Event.Kind, seconds: Double = 30, where fits: (Event) -> Bool = { _ in true }) throws -> Event {
        let deadline = Date(timeIntervalSinceNow: seconds)
        while true {
            if let index = pending.firstIndex(where: { $0.kind == kind && fits($0) }) {
                return pending.remove(at: index)
            }
            let left = deadline.timeIntervalSinceNow
            guard left > 0 else {
                let seen = pending.suffix(20).map { "\($0.kind) \($0.status) \($0.number) \($0.text)" }
                throw Missing(description: "no \(kind) within \(seconds) s; there were \(seen)")
            }
            try take(milliseconds: Int32(min(left * 1000 + 1, 1000)))
        }
    }

    /// Takes the next event, whatever it is.
    func next(seconds: Double = 30) throws -> Event {
        let deadline = Date(timeIntervalSinceNow: seconds)
        while pending.isEmpty {
            guard deadline.timeIntervalSinceNow > 0 else { throw Missing(description: "no event") }
            try take(milliseconds: 1000)
        }
        return pending.removeFirst()
    }

    func state(_ state: PeerState, of peer: UInt64, seconds: Double = 30) throws -> Event {
        try next(.peerState, seconds: seconds) { $0.peer == peer && $0.number == state.rawValue }
    }

    /// The events that are there now.
    func drained() throws -> [Event] {
        try take(milliseconds: 0)
        defer { pending = [] }
        return pending
    }

    func answer(_ json: String, _ peer: PeerConfiguration = PeerConfiguration(), tag: UInt64 = 0) throws -> UInt64 {
        try engine.answer(Array(json.utf8).span.bytes, configuration: peer, tag: tag)
    }
}

extension Event {
    var bytes: [UInt8] { data?.copied() ?? [] }
    var text: String { String(decoding: bytes, as: UTF8.self) }
    var extraText: String { String(decoding: extra?.copied() ?? [], as: UTF8.self) }
}

/// Two hosts with a connection and a channel that the offerer opened.
struct Link {
    let offerer: Host
    let answerer: Host
    var offering: UInt64 = 0
    var answering: UInt64 = 0
    var channel: UInt64 = 0
    var remoteChannel: UInt64 = 0
    var isFast = false
    var token = ""

    /// What becomes of the descriptions on their way.
    struct Signaling {
        var token: String?
        var offer: (String) -> String = { $0 }
        var answer: (String) -> String = { $0 }
        var channel = ChannelConfiguration()
        var peer = PeerConfiguration()
    }

    init(_ offerer: Host, _ answerer: Host) {
        self.offerer = offerer
        self.answerer = answerer
    }

    /// Exchanges the descriptions.
    mutating func negotiate(_ signaling: Signaling = Signaling()) throws {
        offering = try offerer.engine.createPeer(PeerConfiguration())
        let peer = try #require(PeerReference(offering))
        channel = try peer.openChannel(signaling.channel)
        try peer.offer(tag: 1)
        let peerNumber = offering
        let offer = try offerer.next(.offer) { $0.peer == peerNumber }
        try #require(offer.status == .ok, "\(offer.text)")
        answering = try answerer.answer(
            signaling.offer(offer.text.with(token: signaling.token)), signaling.peer, tag: 2)
        let answeringNumber = answering
        let answer = try answerer.next(.answer) { $0.peer == answeringNumber }
        try #require(answer.status == .ok, "\(answer.text)")
        #expect(answer.tag == 2)
        isFast = answer.number == 1
        token = try #require(answer.text.member("sessionToken"))
        #expect(answer.text.member("connectionMode") == (isFast ? "fast" : "normal"))
        try peer.accept(Array(signaling.answer(answer.text).utf8).span.bytes, tag: 3)
        let result = try offerer.next(.result) { $0.peer == peerNumber }
        try #require(result.status == .ok && result.tag == 3, "\(result.text)")
    }

    /// Waits until both can send.
    mutating func open() throws {
        let (offering, answering) = (offering, answering)
        #expect(try offerer.next(.channelOpen) { $0.peer == offering }.channel == channel)
        remoteChannel = try answerer.next(.channelOpen) { $0.peer == answering && $0.flags & Event.remote != 0 }.channel
    }

    static func connected(_ offerer: Host, _ answerer: Host, _ signaling: Signaling = Signaling()) throws -> Link {
        var link = Link(offerer, answerer)
        try link.negotiate(signaling)
        try link.open()
        return link
    }

    func close() throws {
        try PeerReference(offering)?.close()
        _ = try offerer.state(.closed, of: offering)
        _ = try answerer.state(.closed, of: answering)
    }
}

extension String {
    func with(token: String?) -> String {
        guard let token else { return self }
        return String(dropLast()) + ",\"sessionToken\":\"\(token)\"}"
    }

    /// A member of a flat JSON object whose value is a string without escapes.
    func member(_ name: String) -> String? {
        guard let start = range(of: "\"\(name)\":\"") ?? range(of: "\"\(name)\": \"") else { return nil }
        return self[start.upperBound...].split(separator: "\"", maxSplits: 1).first.map(String.init)
    }
}

@discardableResult
func send(_ channel: UInt64, _ bytes: [UInt8], isText: Bool = false) -> Status {
    guard let channel = ChannelReference(channel) else { return .invalidHandle }
    return channel.send(isText: isText, bytes.span.bytes)
}

/// Runs `body` on as many threads of their own, and waits for them.
func concurrently(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    let done = DispatchGroup()
    for index in 0..<count {
        done.enter()
        Thread.detachNewThread {
            body(index)
            done.leave()
        }
    }
    done.wait()
}
