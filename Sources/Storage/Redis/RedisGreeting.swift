/// What is said first on a connection: login, database, scripts, and whether anybody is there.
enum RedisGreeting {
    enum Step {
        case login
        case database
        case script
        case ping
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
        commands.append((.ping, ["PING"]))
        return commands
    }

    /// Why the connection cannot be used after this reply; nil: it can.
    static func objection(to reply: RedisReply, at step: Step) -> RedisDownReason? {
        guard case .error(let error) = reply else {
            guard case .ping = step, reply != .status("PONG") else { return nil }
            return .protocolViolation("no answer to PING")
        }
        let code = printable(error.code)
        switch step {
        // May be forbidden to this user; then the scripts are sent when they are first run.
        case .script: return nil
        case .login: return .authentication(code: code)
        case .database, .ping: return code.hasPrefix("NOAUTH") ? .authentication(code: code) : .refused(code: code)
        }
    }

    /// The texts of errors may repeat the command, with the password in it. Codes are capital letters.
    private static func printable(_ code: String) -> String {
        let isCode = (1...32).contains(code.utf8.count) && code.utf8.allSatisfy { (0x41...0x5A).contains($0) }
        return isCode ? code : "ERR"
    }
}
