/// What is said first on a connection: login, database, scripts, and whether anybody is there.
enum RedisGreeting {
    enum Step {
        case login
        case database
        case script
        case ping
        case role
    }

    static func commands(_ configuration: RedisClient.Configuration) -> [(Step, [RedisArgument])] {
        let address = configuration.address
        var commands: [(Step, [RedisArgument])] = []
        if let password = address.password {
            commands.append((.login, ["AUTH"] + (address.user.map { [.text($0)] } ?? []) + [.text(password)]))
        }
        if address.database != 0 { commands.append((.database, ["SELECT", .integer(Int64(address.database))])) }
        for script in configuration.scripts { commands.append((.script, ["SCRIPT", "LOAD", .text(script.source)])) }
        for command in configuration.greeting { commands.append((.script, command)) }
        if case .sentinels = address.endpoint {
            commands.insert((.role, ["ROLE"]), at: address.password == nil ? 0 : 1)
        }
        commands.append((.ping, ["PING"]))
        return commands
    }

    /// Why the connection cannot be used after this reply; nil: it can.
    static func objection(to reply: RedisReply, at step: Step) -> RedisDownReason? {
        if case .role = step, case .array(let parts) = reply {
            // Sentinels may not have noticed yet.
            return parts.first?.bytesValue == Array("master".utf8) ? nil : .refused(code: "READONLY")
        }
        guard case .error(let error) = reply else {
            guard case .ping = step, reply != .status("PONG") else { return nil }
            return .protocolViolation("no answer to PING")
        }
        let code = printable(error.code)
        switch step {
        // May be forbidden to this user; then the scripts are sent when they are first run.
        case .script: return nil
        case .login: return .authentication(code: code)
        case .database, .ping, .role:
            return code.hasPrefix("NOAUTH") ? .authentication(code: code) : .refused(code: code)
        }
    }

    /// The texts of errors may repeat the command, with the password in it. Codes are capital letters.
    private static func printable(_ code: String) -> String {
        let isCode = (1...32).contains(code.utf8.count) && code.utf8.allSatisfy { (0x41...0x5A).contains($0) }
        return isCode ? code : "ERR"
    }
}
