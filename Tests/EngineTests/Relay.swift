import Foundation
import Storage
import Synchronization
import Testing
import Wire

@testable import Engine

/// A socket of 127.0.0.1.
final class UDP: Sendable {
    let descriptor: Int32
    let port: UInt16

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        var name = UDP.name(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let (descriptor, size) = (descriptor, length)
        let isBound = withUnsafeMutablePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        port = UInt16(bigEndian: name.sin_port)
        guard isBound else { throw Missing(description: "cannot bind a socket") }
    }

    deinit { close(descriptor) }

    private static func name(_ port: UInt16) -> sockaddr_in {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = port.bigEndian
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return name
    }

    @discardableResult
    func send(_ bytes: [UInt8], to port: UInt16) -> Bool {
        var name = UDP.name(port)
        return withUnsafePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, bytes, bytes.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) >= 0
            }
        }
    }

    /// The next datagram, if there is one.
    func receive() -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        return count >= 0 ? Array(buffer[..<count]) : nil
    }
}

/// A network between two hosts on 127.0.0.1 that loses, doubles and delays datagrams as its seed says. Each side sees
/// the other one behind a port of the relay's, for which the descriptions on their way are rewritten.
final class Relay: Sendable {
    /// Stands for the offerer; stands for the answerer.
    private let sockets: [UDP]
    private let shared = (targets: SharedTargets(), cut: SharedFlag(), isOver: SharedFlag())
    private let ended = DispatchSemaphore(value: 0)

    init(seed: UInt64, loss: Double = 0, duplication: Double = 0, reordering: Double = 0) throws {
        sockets = [try UDP(), try UDP()]
        let (sockets, ended, (targets, cut, isOver)) = (sockets, ended, shared)
        Thread.detachNewThread {
            var random = SeededGenerator(seed: seed)
            // One datagram of each direction may be held until the next one has passed.
            var held: [[UInt8]?] = [nil, nil]
            while !isOver.value {
                var items = sockets.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
                let count = poll(&items, 2, 5)
                for side in 0..<2 {
                    // What came to the port that stands for one goes on to it, from the port that stands for the other.
                    let (inward, outward) = (sockets[side], sockets[1 - side])
                    if count == 0, let late = held[side].take() { outward.send(late, to: targets.value[side]) }
                    while let bytes = inward.receive() {
                        guard !cut.value else { continue }
                        func chance(_ probability: Double) -> Bool {
                            Double.random(in: 0..<1, using: &random) < probability
                        }
                        guard !chance(loss) else { continue }
                        if held[side] == nil, chance(reordering) {
                            held[side] = bytes
                            continue
                        }
                        for _ in 0..<(chance(duplication) ? 2 : 1) { outward.send(bytes, to: targets.value[side]) }
                        if let late = held[side].take() { outward.send(late, to: targets.value[side]) }
                    }
                }
            }
            ended.signal()
        }
    }

    deinit {
        shared.isOver.value = true
        ended.wait()
    }

    var isCut: Bool {
        get { shared.cut.value }
        set { shared.cut.value = newValue }
    }

    func signaling(dtlsActive: Bool = false) -> Link.Signaling {
        var signaling = Link.Signaling()
        signaling.peer.prefersActive = dtlsActive
        signaling.offer = { self.rewritten($0, side: 0) }
        signaling.answer = { self.rewritten($0, side: 1) }
        return signaling
    }

    /// Notes the candidate's port and puts the relay's in its place.
    private func rewritten(_ description: String, side: Int) -> String {
        guard let found = description.firstMatch(of: #/ 127\.0\.0\.1 (\d+) typ host/#), let port = UInt16(found.1)
        else {
            Issue.record("no candidate in \(description)")
            return description
        }
        shared.targets.set(side, port)
        return description.replacing(" 127.0.0.1 \(port) typ", with: " 127.0.0.1 \(sockets[side].port) typ")
    }
}

private final class SharedFlag: Sendable {
    private let flag = Atomic<Bool>(false)
    var value: Bool {
        get { flag.load(ordering: .relaxed) }
        set { flag.store(newValue, ordering: .relaxed) }
    }
}

private final class SharedTargets: Sendable {
    private let ports = Guarded<[UInt16]>([0, 0])
    var value: [UInt16] { ports.withLock { $0 } }
    func set(_ side: Int, _ port: UInt16) { ports.withLock { $0[side] = port } }
}
