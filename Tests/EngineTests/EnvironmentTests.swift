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

    @Test(arguments: [
        ("turn-only", ICEPolicy.relay), ("relay", .relay), (" Turn-Only\n", .relay), ("all", .all), ("ALL", .all),
        ("", .all),
    ])
    func chooseThePolicy(_ value: String, _ policy: ICEPolicy) throws {
        #expect(try read(["ICE_MODE": value]).icePolicy == policy)
    }

    @Test func nameRelays() throws {
        let password = TURNServer.Credentials.password(username: "ann", password: " p:w ", expires: nil)
        let configuration = try read([
            "TURN_URLS": "turn:a, turns:b:443 ,,turn:[2001:db8::1]:7?transport=tcp,turn:a", "TURN_USERNAME": "ann",
            "TURN_PASSWORD": " p:w ",
        ])
        #expect(
            configuration.turnServers.map(\.url) == ["turn:a", "turns:b:443", "turn:[2001:db8::1]:7?transport=tcp"])
        #expect(configuration.turnServers.map(\.port) == [3478, 443, 7])
        #expect(configuration.turnServers.map(\.transport) == [.udp, .tls, .tcp])
        #expect(configuration.turnServers.allSatisfy { $0.credentials == password })
        for (variables, user) in [(["TURN_USERNAME": "ann"], "ann"), ([:], ""), (["TURN_PASSWORD": ""], "")] {
            let all = variables.merging(["TURN_URLS": "turn:a", "TURN_SECRET": "s"]) { $1 }
            #expect(try read(all).turnServers.first?.credentials == .secret(user: user, secret: "s"))
        }
        #expect(try read(["TURN_URLS": "turn:a"]).turnServers.first?.credentials == nil)
        // They are for the servers of TURN_URLS only.
        #expect(try read(["TURN_USERNAME": "ann", "TURN_SECRET": "s", "TURN_PASSWORD": "p"]).turnServers.isEmpty)
    }

    @Test func leaveTheRelaysAndPolicyThatTheHostChose() throws {
        let own = try TURNServer(url: "turn:own", credentials: nil)
        let variables = ["ICE_MODE": "nonsense", "TURN_URLS": "nonsense", "TURN_USERNAME": "ann"]
        var configuration = Configuration()
        configuration.turnServers = [own]
        try configuration.readEnvironment(keepsPolicy: true) { name throws(Failure) in variables["\(name)"] }
        #expect(configuration.turnServers == [own] && configuration.icePolicy == .all)
    }

    @Test(arguments: [
        (["TURN_USERNAME": "ann"], "TURN_USERNAME"), (["TURN_PASSWORD": "hunter2"], "TURN_PASSWORD"),
        (["TURN_USERNAME": "ann", "TURN_PASSWORD": "hunter2", "TURN_SECRET": "hunter2"], "TURN_PASSWORD"),
        (["TURN_USERNAME": "a\u{7}", "TURN_PASSWORD": "p"], "TURN_USERNAME"),
        (["TURN_USERNAME": "a", "TURN_PASSWORD": "hunter2\n"], "TURN_PASSWORD"),
        (["TURN_SECRET": "hunter2\u{9F}"], "TURN_SECRET"),
        (["TURN_SECRET": String(repeating: "hunter2", count: 74)], "TURN_SECRET"),
        (["TURN_USERNAME": String(repeating: "u", count: 509), "TURN_PASSWORD": "p"], "TURN_USERNAME"),
        (["TURN_USERNAME": String(repeating: "u", count: 496), "TURN_SECRET": "s"], "TURN_USERNAME"),
    ])
    func sayWhichCredentialsCannotBeUsed(_ variables: [String: String], _ name: String) throws {
        let failure = try #require(refusal(variables.merging(["TURN_URLS": "turn:a"]) { $1 }))
        #expect(failure.status == .invalidArgument && failure.detail.hasPrefix(name), "\(failure.detail)")
        #expect(!failure.detail.contains("hunter2") && failure.detail.utf8.count < 256)
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
        ("REDIS_URL", "redis://[::1]x"), ("ICE_MODE", "lite"), ("ICE_MODE", "turn"), ("TURN_URLS", "stun:a"),
        ("TURN_URLS", "turn:a,turn:"), ("TURN_URLS", "turn:a:0"), ("TURN_URLS", "turns:a?transport=udp"),
        ("TURN_URLS", "turn:a?transport=sctp"), ("TURN_URLS", "turn:a\u{1B}[2J"),
        ("TURN_URLS", (0..<33).map { "turn:a\($0)" }.joined(separator: ",")),
        ("TURN_URLS", "turn:" + String(repeating: "a", count: 600)),
        ("REDIS_URL", "redis+sentinel://"), ("REDIS_URL", "redis+sentinel://watch"),
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
