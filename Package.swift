// swift-tools-version: 6.0
import PackageDescription

/// `Lifetimes` lets a reader keep the span it reads from (Wire's ByteReader).
let settings: [SwiftSetting] = [
    .enableExperimentalFeature("Lifetimes"),
    .swiftLanguageMode(.v6),
]

func library(
    _ name: String, _ dependencies: [Target.Dependency] = [], exclude: [String] = [], more: [SwiftSetting] = []
) -> Target {
    .target(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: settings + more)
}

/// Leaves out the run-time half of the exclusivity checks in release builds, a third of the time that
/// SCTP needs for a small message and 5 % of all. Debug builds, and with them all tests and fuzzers, keep it.
let withoutExclusivityChecks = SwiftSetting.unsafeFlags(
    ["-enforce-exclusivity=unchecked"], .when(configuration: .release))

/// For what does not run per message: the library's size matters more than these modules' time.
let small = SwiftSetting.unsafeFlags(["-Osize"], .when(configuration: .release))

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(
        name: name + "Tests", dependencies: dependencies, path: "Tests/\(name)Tests", exclude: exclude,
        swiftSettings: settings)
}

/// A copy of Swift's standard library that scripts/build has made, without the tables for unwinding through it: 0.6 MB.
/// Nothing throws through it, and a host's thread that waits here, and may be cancelled, waits in none of its functions.
let trimmedStandardLibrary = Context.environment["TRIMMED_STANDARD_LIBRARY"].map { [$0] } ?? []

let package = Package(
    name: "libreconnect",
    products: [
        .library(name: "reconnect", type: .dynamic, targets: ["libreconnect"])
    ],
    targets: [
        // The contract: include/reconnect.h.
        .systemLibrary(name: "CReconnect", path: "include"),

        // C libraries and the calls that Swift cannot make itself.
        .target(name: "COpenSSL", linkerSettings: [.linkedLibrary("ssl"), .linkedLibrary("crypto")]),
        .target(name: "CChecksum"),
        .target(name: "CSystem"),
        .target(name: "CHiredis", linkerSettings: [.linkedLibrary("hiredis")]),
        .systemLibrary(
            name: "CJansson", path: "Sources/CJansson", pkgConfig: "jansson", providers: [.apt(["libjansson-dev"])]),
        .systemLibrary(
            name: "CSQLite", path: "Sources/CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
        .systemLibrary(
            name: "CZstandard", path: "Sources/CZstandard", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),

        // Bytes, time, serial numbers, addresses.
        library("Wire", more: [withoutExclusivityChecks]),

        // The protocols: siblings, without I/O.
        library("STUN", ["Wire", "COpenSSL"], more: [withoutExclusivityChecks]),
        library("SDP", ["Wire"], more: [small]),
        library("ICE", ["Wire", "STUN"], more: [withoutExclusivityChecks, small]),
        library("TURN", ["Wire", "STUN"], more: [withoutExclusivityChecks, small]),
        library("DTLS", ["Wire", "COpenSSL"], more: [withoutExclusivityChecks]),
        library("SCTP", ["Wire", "CChecksum"], more: [withoutExclusivityChecks]),

        // Channels on an association.
        library("DataChannel", ["Wire", "SCTP"], more: [withoutExclusivityChecks]),

        // One WebRTC peer.
        library(
            "Peer", ["Wire", "STUN", "SDP", "ICE", "DTLS", "SCTP", "DataChannel"], more: [withoutExclusivityChecks]),

        // What the library exists for, without I/O.
        library("Signaling", ["Wire", "CJansson"], more: [small]),
        library("Reload", ["Wire", "Signaling", "COpenSSL"], more: [small]),
        library("Replay", ["Wire", "COpenSSL"], more: [withoutExclusivityChecks]),
        library("Compression", ["CZstandard"], more: [small]),

        // Databases: threads and sockets of their own.
        library("Storage", ["Wire", "CSystem", "COpenSSL", "CHiredis", "CSQLite"], more: [small]),

        // Replay's rooms in them.
        library("ReplayStores", ["Wire", "CSystem", "Replay", "Storage"], more: [small]),

        // Sockets, clock, threads, files; then the exports; then the link unit.
        library(
            "Engine",
            [
                "CReconnect", "Wire", "STUN", "SDP", "ICE", "Peer", "DTLS", "SCTP", "DataChannel", "Signaling",
                "Reload", "Storage", "TURN", "COpenSSL", "CSystem",
            ], more: [withoutExclusivityChecks, small]),
        library(
            "ReplayHost", ["Wire", "CSystem", "Compression", "Replay", "ReplayStores", "Storage", "Engine"],
            more: [withoutExclusivityChecks, small]),
        library(
            "ReconnectABI", ["CReconnect", "Engine", "Replay", "ReplayHost", "Wire"],
            more: [withoutExclusivityChecks, small]),
        .target(
            name: "libreconnect", dependencies: ["ReconnectABI"], exclude: ["reconnect.map"], swiftSettings: settings,
            linkerSettings: [
                .unsafeFlags(
                    [
                        "-static-stdlib", "-use-ld=lld",
                        "-Xlinker", "-soname=libreconnect.so.1",
                        "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/libreconnect/reconnect.map",
                        "-Xlinker", "--no-undefined-version",
                        "-Xlinker", "-z", "-Xlinker", "nodelete",
                        "-Xlinker", "--gc-sections",
                        // Equal functions become one, 0.4 MB less: nothing here tells functions apart by address.
                        "-Xlinker", "--icf=all",
                        // Half a megabyte of names of Unicode characters that nobody asks for: CSystem/unicode_names.c.
                        "-Xlinker", "--wrap=_swift_stdlib_getScalarName",
                        // Half a megabyte less; needs glibc 2.36, Debian 12's.
                        "-Xlinker", "-z", "-Xlinker", "pack-relative-relocs",
                    ] + trimmedStandardLibrary)
            ]),

        tests("Wire", ["Wire"]),
        tests("STUN", ["STUN", "Wire"]),
        tests("SDP", ["SDP", "Wire"], exclude: ["Vectors"]),
        tests("ICE", ["ICE", "STUN", "Wire"]),
        // coturn, for the tests of two targets.
        .target(
            name: "Coturn", dependencies: ["TURN", "COpenSSL", "Wire"], path: "Tests/Coturn", swiftSettings: settings),
        tests("TURN", ["Coturn", "TURN", "STUN", "COpenSSL", "Wire"]),
        tests("DTLS", ["DTLS", "COpenSSL", "Wire"]),
        tests("SCTP", ["SCTP", "Wire", "CChecksum"]),
        tests("DataChannel", ["DataChannel", "SCTP", "Wire"]),
        tests("Peer", ["Peer", "Wire", "ICE", "SCTP", "DataChannel", "DTLS", "SDP"]),
        tests("Signaling", ["Signaling", "Wire"]),
        tests("Reload", ["Reload", "Signaling", "Wire"]),
        tests("Replay", ["Replay", "Wire"]),
        tests("Compression", ["Compression", "Wire"]),
        tests("Storage", ["Storage", "Wire"]),
        tests("ReplayStores", ["ReplayStores", "Replay", "Storage", "Wire"]),
        tests("ReplayHost", ["ReplayHost", "CSQLite", "Engine", "Replay", "Storage", "Wire"]),
        tests(
            "Engine",
            [
                "Engine", "Coturn", "COpenSSL", "CReconnect", "CSystem", "DTLS", "ICE", "Reload", "Storage", "STUN",
                "TURN", "Wire",
            ]),
    ]
)
