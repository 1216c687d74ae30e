import Foundation
import Testing

@testable import Engine

private func read(
    _ variables: [String: String], _ configure: (inout Configuration) -> Void = { _ in }
) throws(Failure) -> Configuration {
    var configuration = Configuration()
    configure(&configuration)
    try configuration.readEnvironment { name throws(Failure) in variables["\(name)"] }
    return configuration
}

private func refusal(_ variables: [String: String]) -> Failure? {
    do throws(Failure) {
        _ = try read(variables)
        return nil
    } catch {
        return error
    }
}

@Suite struct EnvironmentVariables {
    @Test(arguments: [
        ("false", FastReloadSetting.off), ("0", .off), ("no", .off), ("OFF", .off), (" False ", .off), ("true", .on),
        ("1", .on), ("yes", .on), ("on", .on), ("partial", .partial), ("Partial", .partial), ("", .on), ("  ", .on),
    ])
    func switchFastReload(_ value: String, _ setting: FastReloadSetting) throws {
        #expect(try read(["ENABLE_FAST_RELOAD": value]).fastReload == setting)
    }

    @Test func nameServers() throws {
        let servers = try read(["STUN_URLS": "stun:stun.example.org:3478, 192.0.2.1:99,,[2001:db8::1]:7 ,stun:a"])
            .stunServers
        #expect(
            servers == [
                ServerAddress(host: "stun.example.org", port: 3478), ServerAddress(host: "192.0.2.1", port: 99),
                ServerAddress(host: "2001:db8::1", port: 7), ServerAddress(host: "a", port: 3478),
            ])
        #expect(try read(["STUN_URLS": " , "]).stunServers.isEmpty)
        #expect(try read(["STUN_URLS": "a,a,stun:a:3478"]).stunServers.count == 1)
    }

    @Test(arguments: [
        "redis://cache", "redis://:secret@cache:6379/3", "rediss://user:p%40ss@cache.example.org", "redis://cache/",
        "redis://[2001:db8::1]:6379", "redis://[::1]/15", "redis+unix:/run/redis.sock", "redis://user:a@b@cache",
        "redis+sentinel://watch/main", "redis+sentinel://:secret@[2001:db8::1]:26380,watch:26379/main/3",
        "redis+sentinel://watch/main?sentinel_user=a&sentinel_password=b", "rediss://cache?ca=/etc/ca.pem",
        "redis+unix:/run/redis.sock?db=3",
    ])
    func nameTheStore(_ url: String) throws {
        #expect(try read(["REDIS_URL": " \(url)\n"]).sessionStore == url)
    }

    @Test func leaveWhatTheHostChose() throws {
        let variables = ["ENABLE_FAST_RELOAD": "partial", "STUN_URLS": "stun:b", "REDIS_URL": "redis://b"]
        let configuration = try read(variables) {
            $0.fastReload = .off
            $0.stunServers = [ServerAddress(host: "a", port: 1)]
            $0.sessionStore = "sqlite:/a"
        }
        #expect(configuration.fastReload == .off)
        #expect(configuration.stunServers == [ServerAddress(host: "a", port: 1)])
        #expect(configuration.sessionStore == "sqlite:/a")
        // Not even looked at.
        #expect(throws: Never.self) {
            try read(["STUN_URLS": ":::"]) { $0.stunServers = [ServerAddress(host: "a", port: 1)] }
        }
    }

    @Test func changeNothingWhenNotSet() throws {
        let configuration = try read([:])
        #expect(configuration.fastReload == .on && configuration.stunServers.isEmpty)
        #expect(configuration.sessionStore == nil)
    }

    @Test(arguments: [
        ("ENABLE_FAST_RELOAD", "maybe"), ("ENABLE_FAST_RELOAD", "2"), ("STUN_URLS", "turn:a:1"),
        ("STUN_URLS", "stun:a,stun:"), ("STUN_URLS", "a:0"), ("STUN_URLS", "a:70000"), ("STUN_URLS", "a b"),
        ("STUN_URLS", "stun:a?transport=udp"), ("STUN_URLS", (0..<33).map { "a\($0)" }.joined(separator: ",")),
        ("REDIS_URL", "http://a"), ("REDIS_URL", "redis://"), ("REDIS_URL", "redis://a:b:1"),
        ("REDIS_URL", "redis://:secret@"), ("REDIS_URL", "redis://a/x"), ("REDIS_URL", "redis://a:0"),
        ("REDIS_URL", "redis://a b"), ("REDIS_URL", "redis+unix:"), ("REDIS_URL", "redis://a/70000"),
        ("REDIS_URL", "redis://" + String(repeating: "a", count: 3000)), ("REDIS_URL", "redis://[]"),
        ("REDIS_URL", "redis://[::1]x"), ("REDIS_URL", "redis+sentinel://"), ("REDIS_URL", "redis+sentinel://watch"),
        ("REDIS_URL", "redis+sentinel://watch/"), ("REDIS_URL", "redis+sentinel:///main"),
        ("REDIS_URL", "redis+sentinel://watch,/main"), ("REDIS_URL", "redis+sentinel://watch:0/main"),
        ("REDIS_URL", "redis+sentinel://watch/main/x"), ("REDIS_URL", "redis+sentinel://watch/main?ca=/a"),
        ("REDIS_URL", "redis://cache?ca=/a"), ("REDIS_URL", "redis://%zz@cache"),
    ])
    func sayWhichOfThemCannotBeUsed(_ name: String, _ value: String) throws {
        let failure = try #require(refusal([name: value]), "\(value)")
        #expect(failure.status == .invalidArgument && failure.detail.hasPrefix(name), "\(failure.detail)")
        #expect(failure.detail.utf8.count < 256)
    }

    @Test func areThoseOfTheProcess() throws {
        #expect(try systemEnvironment("PATH") == ProcessInfo.processInfo.environment["PATH"])
        #expect(try systemEnvironment("A_VARIABLE_THAT_NOBODY_SETS") == nil)
    }

    @Test func keepPasswordsToThemselves() throws {
        for url in [
            "redis://user:hunter2@", "redis:/user:hunter2@host", "redis://user:hunter2@host:x", "hunter2",
            "redis+sentinel://user:hunter2@watch",
        ] {
            let detail = try #require(refusal(["REDIS_URL": url])).detail
            #expect(!detail.contains("hunter2") && !detail.contains("user:h"))
        }
    }

    @Test func areShownWithoutControlCharacters() throws {
        let detail = try #require(refusal(["ENABLE_FAST_RELOAD": "a\nb\u{1B}[2J\u{7F}"])).detail
        #expect(detail.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7F })
    }
}
