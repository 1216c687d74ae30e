import Testing

@testable import Storage

@Suite struct RedisAddresses {
    @Test(arguments: [
        ("redis://example.org", RedisAddress(endpoint: .host("example.org", port: 6379))),
        ("REDIS://example.org/", RedisAddress(endpoint: .host("example.org", port: 6379))),
        ("redis://127.0.0.1:7000/3", RedisAddress(endpoint: .host("127.0.0.1", port: 7000), database: 3)),
        ("redis://[2001:db8::1]:7000", RedisAddress(endpoint: .host("2001:db8::1", port: 7000))),
        ("redis://:p%40ss@h", RedisAddress(endpoint: .host("h", port: 6379), password: "p@ss")),
        ("redis://p%3Aw@h", RedisAddress(endpoint: .host("h", port: 6379), password: "p:w")),
        ("redis://u:p:q@h", RedisAddress(endpoint: .host("h", port: 6379), user: "u", password: "p:q")),
        (
            "redis://u:a/b@h:1/2",
            RedisAddress(endpoint: .host("h", port: 1), user: "u", password: "a/b", database: 2)
        ),
        ("rediss://h", RedisAddress(endpoint: .host("h", port: 6379), tls: .init())),
        (
            "rediss://h?ca=/etc/ca%20x.pem",
            RedisAddress(endpoint: .host("h", port: 6379), tls: .init(authorities: "/etc/ca x.pem"))
        ),
        (
            "rediss://h/1?cert=/c&key=/k",
            RedisAddress(endpoint: .host("h", port: 6379), tls: .init(certificate: "/c", key: "/k"), database: 1)
        ),
        ("redis+unix:/run/redis.sock", RedisAddress(endpoint: .path("/run/redis.sock"))),
        (
            "redis+unix:/run/r?db=4&user=u&password=x",
            RedisAddress(endpoint: .path("/run/r"), user: "u", password: "x", database: 4)
        ),
    ])
    func areRead(_ text: String, _ expected: RedisAddress) throws {
        #expect(try RedisAddress(parsing: text) == expected)
    }

    @Test(arguments: [
        ("", RedisAddress.ParseError.scheme), ("http://h", .scheme), ("redis:h", .scheme), ("redis://", .host),
        ("redis://u:p@", .host), ("redis://h h", .host), ("redis://[::1", .host), ("redis://[::1]x", .host),
        ("redis://h:0", .port), ("redis://h:65536", .port), ("redis://h:+1", .port), ("redis://h:", .port),
        ("redis://h/x", .database), ("redis://h/-1", .database), ("redis://h/65536", .database),
        ("redis://%zz@h", .credentials), ("redis://u:%ff@h", .credentials), ("redis://u:%00@h", .credentials),
        ("redis://h?ca=/x", .query), ("rediss://h?ca=", .query), ("rediss://h?x=1", .query),
        ("rediss://h?ca=/x&ca=/y", .query), ("rediss://h?cert=/x", .query), ("redis+unix:", .path),
        ("redis+unix:/" + String(repeating: "x", count: 107), .path), ("redis+unix:/x?db=a", .database),
        ("redis://a\0b", .scheme),
    ])
    func areRefused(_ text: String, _ expected: RedisAddress.ParseError) {
        #expect(throws: expected) { try RedisAddress(parsing: text) }
    }

    @Test func neverShowThePassword() throws {
        for text in ["redis://u:hunter2@h/1", "rediss://:hunter2@h", "redis+unix:/x?password=hunter2"] {
            let address = try RedisAddress(parsing: text)
            #expect(address.password == "hunter2")
            var dumped = ""
            dump(address, to: &dumped)
            for shown in ["\(address)", String(reflecting: address), dumped, "\([address])"] {
                #expect(!shown.contains("hunter2"))
            }
        }
        for text in ["redis://u:hunter2@h:x", "redis://u:hunter2@", "http://u:hunter2@h", "redis://hunter2%@h"] {
            do {
                _ = try RedisAddress(parsing: text)
                Issue.record("parsed \(text)")
            } catch {
                #expect(!"\(error)".contains("hunter2"))
            }
        }
    }
}

@Suite struct RedisCommands {
    @Test func areArraysOfBulkStrings() {
        let command: [RedisArgument] = ["SET", .bytes([0, 13, 10, 255]), .integer(-7), .text("é")]
        let expected: [UInt8] =
            Array("*4\r\n$3\r\nSET\r\n$4\r\n".utf8) + [0, 13, 10, 255]
            + Array("\r\n$2\r\n-7\r\n$2\r\né\r\n".utf8)
        #expect(RedisEncoder.encode(command) == expected)
    }

    /// `printf 'return 1' | sha1sum`
    @Test func scriptsAreNamedByTheirDigest() {
        #expect(RedisScript("return 1").digest == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db")
    }
}
