import Foundation
import Reload
import Signaling
import Testing
import Wire

@testable import Engine

/// A directory that is gone after the test.
final class Place {
    let path: String

    init() {
        path = NSTemporaryDirectory() + "cache-" + String(UInt64.random(in: 0...(.max)), radix: 16)
        try? FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    var file: String { path + "/cache.json" }

    func write(_ text: String, mode: Int = 0o600) {
        try? FileManager.default.removeItem(atPath: file)
        _ = FileManager.default.createFile(
            atPath: file, contents: Data(text.utf8), attributes: [.posixPermissions: mode])
    }

    var text: String { (try? String(contentsOfFile: file, encoding: .utf8)) ?? "" }
    var mode: Int {
        ((try? FileManager.default.attributesOfItem(atPath: file))?[.posixPermissions] as? Int) ?? -1
    }
    var names: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted() }
}

func entry(_ token: String, at timestamp: Int64 = 1) -> CacheEntry {
    var entry = CacheEntry(lastSuccessfulProtocol: .ipv6, timestamp: timestamp, sessionID: token)
    entry.add(CandidateInit(candidate: "candidate:1 1 udp 2130706431 2001:db8::1 5000 typ host", sdpMid: "0"))
    return entry
}

@Suite struct CacheFileTests {
    @Test func surviveTheProcess() {
        let place = Place()
        let first = Cache(path: place.file)
        #expect(first.refresh() == [])
        #expect(first.entries["a"] == nil)
        first.entries.set("a", entry("session-1"))
        #expect(first.entries["a"]?.sessionID == "session-1")
        #expect(first.write() == [] && place.mode == 0o600)
        let second = Cache(path: place.file)
        #expect(second.refresh() == [] && second.entries["a"] == entry("session-1"))
        second.entries.remove("a")
        #expect(second.write() == [])
        let third = Cache(path: place.file)
        #expect(third.refresh() == [] && third.entries["a"] == nil)
        #expect(place.names == ["cache.json"])
    }

    @Test func keepWhatOthersHaveWrittenUnderOtherKeys() {
        let place = Place()
        let (one, two) = (Cache(path: place.file), Cache(path: place.file))
        _ = (one.refresh(), two.refresh())
        one.entries.set("a", entry("session-1"))
        two.entries.set("b", entry("session-2"))
        #expect(one.write() == [] && two.write() == [])
        #expect(two.entries["a"]?.sessionID == "session-1")
        #expect(one.entries["b"] == nil)
        #expect(one.refresh() == [] && one.entries["b"]?.sessionID == "session-2")
        // A change that is not written yet stays over what others write.
        one.entries.set("b", entry("session-3"))
        two.entries.set("c", entry("session-4"))
        _ = two.write()
        #expect(one.refresh() == [] && one.entries["b"]?.sessionID == "session-3" && one.entries["c"] != nil)
        one.entries.remove("a")
        _ = one.write()
        // Also what one's own memory has never seen.
        let three = Cache(path: place.file)
        three.entries.remove("c")
        _ = three.write()
        #expect(two.refresh() == [] && two.entries["c"] == nil)
        #expect(two.refresh() == [] && two.entries["a"] == nil && two.entries["b"]?.sessionID == "session-3")
    }

    @Test func loseNothingWhenManyWriteAtOnce() {
        let place = Place()
        let path = place.file
        concurrently(4) { writer in
            let cache = Cache(path: path)
            for turn in 0..<10 {
                cache.entries.set("\(writer)-\(turn)", entry("session-\(writer)-\(turn)"))
                #expect(cache.write() == [])
            }
        }
        let cache = Cache(path: path)
        #expect(cache.refresh() == [])
        for writer in 0..<4 { for turn in 0..<10 { #expect(cache.entries["\(writer)-\(turn)"] != nil) } }
        #expect(place.names == ["cache.json"])
    }

    @Test(arguments: ["{", "[]", "null", "\u{0}", "{\"a\":1,\"a\":2}", String(repeating: "[", count: 100_000)])
    func areReplacedWhenTheyAreCorrupt(text: String) {
        let place = Place()
        place.write(text)
        let cache = Cache(path: place.file)
        #expect(cache.refresh().count == 1)
        #expect(cache.refresh() == [] && cache.entries["a"] == nil)
        cache.entries.set("a", entry("session-1"))
        #expect(cache.write() == [])
        #expect(Cache(path: place.file).refresh() == [])
        #expect(place.text.contains("session-1"))
    }

    @Test func loseOnlyTheEntriesThatAreWrong() throws {
        let place = Place()
        let cache = Cache(path: place.file)
        cache.entries.set("good", entry("session-1"))
        _ = cache.write()
        place.write(String(place.text.dropLast()) + #","bad":{"timestamp":"yesterday"},"worse":7}"#)
        let other = Cache(path: place.file)
        #expect(other.refresh().count == 1 && other.entries["good"] != nil && other.entries["bad"] == nil)
    }

    @Test func areNotUsedIfTheyAreNotThisUsersAlone() {
        let place = Place()
        let cache = Cache(path: place.file)
        cache.entries.set("a", entry("session-1"))
        _ = cache.write()
        chmod(place.file, 0o644)
        let other = Cache(path: place.file)
        #expect(other.refresh().count == 1 && other.entries["a"] == nil)
        // The next one that is written is.
        other.entries.set("b", entry("session-2"))
        #expect(other.write() == [] && place.mode == 0o600)
        #expect(Cache(path: place.file).refresh() == [])
    }

    @Test func warnOnceWhereNothingCanBeKept() {
        let place = Place()
        for path in [
            place.path, place.path + "/missing/cache.json", "/dev/null/cache.json",
            place.path + "/" + String(repeating: "n", count: 250),
        ] {
            let cache = Cache(path: path)
            let warnings = cache.refresh().count
            cache.entries.set("a", entry("session-1"))
            #expect(warnings + cache.write().count == 1, "\(path)")
            #expect(cache.write() == [])
            // In memory it works.
            #expect(cache.entries["a"] != nil)
        }
        #expect(place.names.count <= 1)
    }

    @Test func stayWithinTheirSize() throws {
        let place = Place()
        let cache = Cache(path: place.file)
        var big = CacheEntry(lastSuccessfulProtocol: .both, timestamp: 0, sessionID: "session-x")
        for index in 0..<32 {
            big.add(
                CandidateInit(
                    candidate: "candidate:\(index) 1 udp 1 2001:db8::\(String(index + 1, radix: 16)) 5000 typ host "
                        + "network-id " + String(repeating: "9", count: 200), sdpMid: "0"))
        }
        for index in 0..<1100 {
            big.timestamp = Int64(index)
            cache.entries.set("key \(index)", big)
        }
        // The oldest have gone.
        #expect(cache.entries["key 0"] == nil && cache.entries["key 1099"] != nil)
        #expect(cache.write() == [])
        #expect(place.text.utf8.count <= 1 << 20 && place.text.utf8.count > 900_000)
        let other = Cache(path: place.file)
        #expect(other.refresh() == [] && other.entries["key 1099"] != nil && other.entries["key 500"] == nil)
        place.write(String(repeating: " ", count: (1 << 20) + 1))
        #expect(Cache(path: place.file).refresh() == ["it is too large"])
    }

    @Test func areReadWithoutWaiting() {
        // Three are published between two of a reader's steps, the second of them where it is about to look: it sees
        // the newest.
        let interrupted = Published(0)
        var isFirst = true
        let seen = interrupted.read {
            guard isFirst else { return }
            isFirst = false
            for value in 1...3 { interrupted.publish(value) }
        }
        #expect(seen == 3)
        let published = Published([0, 0])
        concurrently(4) { index in
            for turn in 1...20_000 {
                if index == 0 { published.publish([turn, turn]) }
                let seen = published.value
                #expect(seen[0] == seen[1])
            }
        }
        #expect(published.value == [20_000, 20_000])
    }
}

/// Asks until it is so: what another thread does is not told.
private func settles(_ condition: () -> Bool) -> Bool {
    let deadline = Date(timeIntervalSinceNow: 30)
    while !condition() {
        guard deadline.timeIntervalSinceNow > 0 else { return false }
        sched_yield()
    }
    return true
}

@Suite struct KeptConnections {
    @Test func areComeBackToByANewEngine() throws {
        let place = Place()
        let server = try Trip.server()
        let certificate = place.path + "/client.pem"
        for mode in [Connector.Mode.normal, .zeroSignaling, .fast] {
            let trip = try Trip(try Host { $0.certificatePath = certificate }, server) {
                $0.cachePath = place.file
                $0.usesTickets = mode != .fast
            }
            try trip.connect(mode)
            #expect(trip.client.engine.destroy() == .ok)
            #expect(place.text.contains("session-") && place.mode == 0o600)
            #expect(place.names == ["cache.json", "cache.json.tickets", "client.pem"])
        }
    }

    @Test func areMadeNormallyWithACorruptFile() throws {
        let place = Place()
        place.write("{\"default\":")
        let client = try Host { $0.logLevel = .warning }
        let trip = try Trip(client, try Trip.server()) { $0.cachePath = place.file }
        #expect(try client.next(.log).text.hasPrefix("[CACHE]"))
        try trip.connect(.normal)
        #expect(client.engine.destroy() == .ok)
        #expect(place.text.contains("session-"))
    }

    @Test func areLetGoWithTheLastConnector() throws {
        let place = Place()
        let (client, server) = (try Host { $0.logLevel = .warning }, try Trip.server())
        let trips = try ["a", "b"].map { key in
            try Trip(client, server) {
                $0.cachePath = place.file
                $0.key = key
            }
        }
        for trip in trips { try trip.connect(.normal) }
        #expect(client.engine.caches.count == 1)
        try trips[0].reference.close()
        _ = try trips[0].state(.closed)
        #expect(client.engine.caches.count == 1)
        // What is not in the file yet comes there first.
        try trips[1].reference.forget()
        try trips[1].reference.close()
        _ = try trips[1].state(.closed)
        #expect(settles { client.engine.caches.count == 0 })
        #expect(place.text.contains("\"a\"") && !place.text.contains("\"b\""))
        // And the next one finds it there.
        let again = try Trip(client, server) {
            $0.cachePath = place.file
            $0.key = "a"
        }
        try again.connect(.zeroSignaling)
        #expect(try client.drained().allSatisfy { $0.kind != .log })
    }

    @Test func areLetGoWhereNothingCanBeKept() throws {
        let place = Place()
        let client = try Host { $0.logLevel = .warning }
        let trip = try Trip(client, try Trip.server()) { $0.cachePath = place.path + "/missing/cache.json" }
        try trip.connect(.normal)
        #expect(try client.next(.log).text.contains("its directory is missing"))
        try trip.reference.close()
        #expect(settles { client.engine.caches.count == 0 })
    }

    @Test func areForgottenOnDiskToo() throws {
        let place = Place()
        let trip = try Trip(try Host(), try Trip.server()) { $0.cachePath = place.file }
        try trip.connect(.normal)
        try trip.reference.forget()
        #expect(trip.client.engine.destroy() == .ok)
        #expect(!place.text.contains("session-"))
    }
}
