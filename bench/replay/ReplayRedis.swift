// Publishes to, or recovers from, one room in a Redis server as fast as one process with one connection can.
// usage: replay-redis PORT publish|recover COUNT WINDOW SIZE; one line of JSON on standard output.

import CSystem
import Glibc
import Replay
import ReplayStores
import Storage
import Wire

func processorSeconds() -> Double {
    var usage = rusage()
    unsafe getrusage(__rusage_who_t(0), &usage)
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    return seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Lets the caller wait for the store's thread.
final class Bell: Sendable {
    private let descriptor = cs_eventfd_create()
    func ring() { cs_eventfd_signal(descriptor) }
    func wait() {
        var entries = [cs_wait_entry(fd: descriptor, want: Int32(CS_READ), got: 0)]
        _ = unsafe cs_wait_any(&entries, 1, 5_000_000_000)
        cs_eventfd_clear(descriptor)
    }
}

struct Failed: Error { let what: String }

@main struct ReplayRedis {
    static func main() throws {
        let words = CommandLine.arguments
        guard words.count == 6, let count = Int(words[3]), let window = Int(words[4]), let size = Int(words[5]) else {
            throw Failed(what: "usage: replay-redis PORT publish|recover COUNT WINDOW SIZE")
        }
        let address = try RedisAddress(parsing: "redis://127.0.0.1:\(words[1])")
        var configuration = RedisReplayStore.Configuration(redis: RedisClient.Configuration(address: address))
        configuration.timeout = .seconds(30)
        configuration.redis.stallTimeout = .seconds(10)
        let bell = Bell()
        let store = RedisReplayStore(
            configuration, random: SystemRandomNumberGenerator(), onOutcome: { bell.ring() },
            onState: { _ in bell.ring() })
        while store.state != .up { bell.wait() }
        let now = Instant(nanoseconds: 1)
        let room = try RoomName("lobby")
        let ann = Membership(room: room, user: try UserName("ann"))
        let bob = Membership(room: room, user: try UserName("bob"))
        func perform(_ operation: Operation) -> Outcome {
            if let outcome = store.submit(operation, id: OperationID(0), now: now) { return outcome }
            while true {
                if let (_, outcome) = store.pollOutcome() { return outcome }
                bell.wait()
            }
        }
        _ = perform(.join(ann, resume: nil))
        guard case .joined(let joined, _) = perform(.join(bob, resume: nil)) else { throw Failed(what: "join") }
        let payload = [UInt8](repeating: 0x78, count: size)
        let publish = Operation.publish(room: room, from: ann.user, to: nil, MessageProperties(), payload: payload)
        var place = joined.recovery.position
        for number in 1...60 {
            guard case .published(let published) = perform(publish) else { throw Failed(what: "publish") }
            if number == 40 { place = published.position }
        }
        let recover = Operation.recover(bob, generation: joined.generation, .position(place))
        let operation = words[2] == "recover" ? recover : publish
        let began = cs_monotonic_ns()
        let processor = processorSeconds()
        var sent = 0
        var done = 0
        var wrong = 0
        while done < count {
            while sent < count, sent - done < window {
                if store.submit(operation, id: OperationID(UInt64(sent)), now: now) != nil {
                    wrong += 1
                    done += 1
                }
                sent += 1
            }
            var isIdle = true
            while let (_, outcome) = store.pollOutcome() {
                isIdle = false
                done += 1
                switch outcome {
                case .published: break
                case .recovered(let recovery, let batch) where recovery.verdict == .recovered && batch.count == 20:
                    break
                default: wrong += 1
                }
            }
            if isIdle { bell.wait() }
        }
        let seconds = Double(cs_monotonic_ns() - began) / 1e9
        let used = processorSeconds() - processor
        print(
            "{\"operation\": \"\(words[2])\", \"count\": \(count), \"per_s\": \(Int(Double(count) / seconds)), "
                + "\"client_cpu_us\": \(used / Double(count) * 1e6), \"wrong\": \(wrong)}")
        store.close()
    }
}
