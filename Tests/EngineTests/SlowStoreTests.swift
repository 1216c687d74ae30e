import Foundation
import Reload
import Synchronization
import Testing
import Wire

@testable import Engine

/// A Redis that is there, and answers nothing that it is asked about sessions.
private final class SilentRedis: Sendable {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString).path
    private let listener: Int32
    private let accepted = Mutex<[Int32]>([])

    init() throws {
        listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let path = Array(path.utf8)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path) }
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(bound == 0 && listen(listener, 8) == 0)
        Thread.detachNewThread { [self] in
            while case let connection = accept(listener, nil, nil), connection >= 0 {
                accepted.withLock { $0.append(connection) }
                Thread.detachNewThread { SilentRedis.greet(connection) }
            }
        }
    }

    private static func greet(_ connection: Int32) {
        var heard: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while case let count = recv(connection, &chunk, chunk.count, 0), count > 0 {
            heard += chunk[..<count]
            let text = String(decoding: heard, as: UTF8.self)
            guard text.hasSuffix("PING\r\n") else { continue }
            let scripts = text.components(separatedBy: "SCRIPT\r\n$4\r\nLOAD").count - 1
            let sum = String(repeating: "0", count: 40)
            let reply = Array((String(repeating: "$40\r\n\(sum)\r\n", count: scripts) + "+PONG\r\n").utf8)
            guard send(connection, reply, reply.count, Int32(MSG_NOSIGNAL)) == reply.count else { return }
            heard = []
        }
    }

    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
        for connection in accepted.withLock({ $0 }) { shutdown(connection, Int32(SHUT_RDWR)) }
        try? FileManager.default.removeItem(atPath: path)
    }
}

@Suite struct SlowStores {
    /// It was authenticated, so it is told who came, whatever the store still has to say.
    @Test func aClientThatLeavesBeforeTheStoreAnswersHasBeenHere() throws {
        let redis = try SilentRedis()
        defer { redis.stop() }
        let server = try Trip.server {
            $0.sessionStore = "redis+unix:" + redis.path
            $0.storeTimeout = .seconds(20)
        }
        #expect(try server.next(.store).number == 1)
        let trip = try Trip(try Host(), server)
        _ = try trip.connect(.normal)
        let client = try server.next(.session).text
        _ = try trip.connect(.zeroSignaling)
        try trip.reference.close()
        let session = try server.next(.session)
        #expect(session.text == client && session.detailKind == Mode.zeroSignaling.number)
        #expect(session.flags & Event.returned != 0)
    }
}
