/// What browsers and signaling servers say again and again. Data that was compressed with it cannot be read without it:
/// it never changes. A better one gets a version of its own, and this one stays.
enum SignalingDictionary {
    /// A dictionary as in RFC 8878, section 5: magic number, identifier 32769, tables, content.
    static var bytes: [UInt8] {
        var bytes = tables
        append(descriptions, endingLinesWith: "\r\n", to: &bytes)
        append(descriptions, endingLinesWith: #"\r\n"#, to: &bytes)
        bytes.append(contentsOf: messages.utf8)
        return bytes
    }

    private static func append(_ text: String, endingLinesWith end: String, to bytes: inout [UInt8]) {
        for byte in text.utf8 {
            if byte == 0x0A { bytes.append(contentsOf: end.utf8) } else { bytes.append(byte) }
        }
    }

    /// How often which literals, offsets and lengths come up in descriptions and candidates with the content below, from
    /// ZDICT_finalizeDictionary() at level 6.
    private static let tables: [UInt8] = [
        0x37, 0xa4, 0x30, 0xec, 0x01, 0x80, 0x00, 0x00, 0x34, 0x10, 0xb8, 0xa1, 0x24, 0xe9, 0xfc, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xe7, 0x0e, 0x94, 0x2f, 0x7b, 0x7f, 0x6d, 0x4b, 0xff, 0xf6,
        0x5b, 0x42, 0x48, 0xa3, 0x95, 0xfe, 0xff, 0xff, 0xff, 0x7f, 0x5f, 0xdf, 0x7e, 0x42, 0x08, 0x69,
        0x5d, 0x49, 0xca, 0xbd, 0xb7, 0xdc, 0x52, 0x35, 0x07, 0x04, 0x00, 0x30, 0x0e, 0x23, 0x05, 0x18,
        0x10, 0x12, 0x91, 0xc3, 0x62, 0x12, 0xf1, 0x12, 0x76, 0x03, 0x00, 0x04, 0x00, 0x08, 0x85, 0xc2,
        0x46, 0x86, 0x82, 0xc3, 0x41, 0x83, 0x01, 0x44, 0xc1, 0x41, 0x01, 0x05, 0x04, 0x85, 0xc4, 0x84,
        0x92, 0x81, 0x3c, 0x14, 0x06, 0x83, 0x30, 0x0c, 0x80, 0x40, 0x18, 0x00, 0x60, 0x3c, 0xd4, 0xf2,
        0xbc, 0x64, 0x04, 0x00, 0x00, 0x74, 0x29, 0x30, 0x09, 0x41, 0x99, 0x0c, 0x84, 0x52, 0x24, 0x05,
        0x20, 0x10, 0x80, 0xa1, 0x10, 0x07, 0x33, 0x34, 0x22, 0x03, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00,
        0x00, 0x04, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00,
    ]

    /// Lines of session descriptions, as SDP and once more as they stand in JSON. The further back, the more often used:
    /// near matches cost less.
    private static let descriptions = """
        v=0
        o=mozilla...THIS_IS_SDPARTA-99.0 4611686018427387904 0 IN IP4 0.0.0.0
        a=sendrecv
        a=group:BUNDLE 0 1 2
        a=msid-semantic:WMS *
        m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101
        c=IN IP4 0.0.0.0
        a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level
        a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1
        a=fmtp:101 0-15
        a=rtcp-fb:109 transport-cc
        a=rtcp-fb:9 transport-cc
        a=rtcp-fb:0 transport-cc
        a=rtcp-fb:8 transport-cc
        a=rtpmap:109 opus/48000/2
        a=rtpmap:9 G722/8000/1
        a=rtpmap:101 telephone-event/8000
        m=video 9 UDP/TLS/RTP/SAVPF 120 124 121 125 126 127 97 98 123 122 119
        a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
        a=extmap:6/recvonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay
        a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1
        a=fmtp:97 profile-level-id=42e01f;level-asymmetry-allowed=1
        a=fmtp:120 max-fs=12288;max-fr=60
        a=fmtp:124 apt=120
        a=rtcp-fb:120 nack
        a=rtcp-fb:120 nack pli
        a=rtcp-fb:120 ccm fir
        a=rtcp-fb:120 goog-remb
        a=rtcp-fb:120 transport-cc
        a=rtpmap:120 VP8/90000
        a=rtpmap:124 rtx/90000
        a=rtpmap:121 VP9/90000
        a=rtpmap:126 H264/90000
        a=ssrc:1000000000 cname:{00000000-0000-4000-8000-000000000000}
        a=ssrc-group:FID 1000000000 2000000000
        m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
        c=IN IP4 0.0.0.0
        a=rtcp:9 IN IP4 0.0.0.0
        a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
        a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
        a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
        a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
        a=sendonly
        a=recvonly
        a=inactive
        a=sendrecv
        a=msid:- 
        a=rtcp-mux
        a=rtcp-rsize
        a=rtcp-xr:rcvr-rtt=all
        a=rtpmap:111 opus/48000/2
        a=rtcp-fb:111 transport-cc
        a=fmtp:111 minptime=10;useinbandfec=1
        a=rtpmap:63 red/48000/2
        a=fmtp:63 111/111
        a=rtpmap:9 G722/8000
        a=rtpmap:0 PCMU/8000
        a=rtpmap:8 PCMA/8000
        a=rtpmap:13 CN/8000
        a=rtpmap:110 telephone-event/48000
        a=rtpmap:126 telephone-event/8000
        a=ssrc:1000000000 cname:
        a=ssrc:1000000000 msid:- 
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104 107 108 109 114 115 116 117 39 40 45 46 98 99 100 101 118 119 120
        a=extmap:14 urn:ietf:params:rtp-hdrext:toffset
        a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
        a=extmap:13 urn:3gpp:video-orientation
        a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
        a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay
        a=extmap:6 http://www.webrtc.org/experiments/rtp-hdrext/video-content-type
        a=extmap:7 http://www.webrtc.org/experiments/rtp-hdrext/video-timing
        a=extmap:8 http://www.webrtc.org/experiments/rtp-hdrext/color-space
        a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
        a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
        a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
        a=rtpmap:96 VP8/90000
        a=rtcp-fb:96 goog-remb
        a=rtcp-fb:96 transport-cc
        a=rtcp-fb:96 ccm fir
        a=rtcp-fb:96 nack
        a=rtcp-fb:96 nack pli
        a=rtpmap:97 rtx/90000
        a=fmtp:97 apt=96
        a=rtpmap:102 H264/90000
        a=rtcp-fb:102 goog-remb
        a=rtcp-fb:102 transport-cc
        a=rtcp-fb:102 ccm fir
        a=rtcp-fb:102 nack
        a=rtcp-fb:102 nack pli
        a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f
        a=rtpmap:103 rtx/90000
        a=fmtp:103 apt=102
        a=fmtp:104 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f
        a=fmtp:116 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f
        a=fmtp:39 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=64001f
        a=rtpmap:45 AV1/90000
        a=fmtp:45 level-idx=5;profile=0;tier=0
        a=rtpmap:98 VP9/90000
        a=fmtp:98 profile-id=0
        a=rtpmap:100 VP9/90000
        a=fmtp:100 profile-id=2
        a=rtpmap:118 red/90000
        a=rtpmap:120 ulpfec/90000
        a=ssrc-group:FID 1000000000 2000000000
        a=candidate:842163049 1 udp 2130706431 192.0.2.1 50000 typ host
        a=candidate:842163049 1 udp 1677729535 192.0.2.1 50000 typ srflx raddr 0.0.0.0 rport 0 generation 0 network-cost 999
        a=candidate:842163049 1 udp 41885439 192.0.2.1 50000 typ relay raddr 0.0.0.0 rport 0 generation 0 network-cost 999
        a=candidate:0 1 UDP 2122252543 
        a=candidate:1 1 TCP 2105524479 .local 9 typ host tcptype active
        a=end-of-candidates
        v=0
        o=mozilla...THIS_IS_SDPARTA-99.0 4611686018427387904 0 IN IP4 0.0.0.0
        s=-
        t=0 0
        a=sendrecv
        a=fingerprint:sha-256 
        a=group:BUNDLE 0
        a=ice-options:trickle
        a=msid-semantic:WMS *
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel
        c=IN IP4 0.0.0.0
        a=sendrecv
        a=ice-pwd:
        a=ice-ufrag:
        a=mid:0
        a=setup:active
        a=sctp-port:5000
        a=max-message-size:1073741823
        v=0
        o=- 4611686018427387904 2 IN IP4 127.0.0.1
        s=-
        t=0 0
        a=group:BUNDLE 0 1 2
        a=extmap-allow-mixed
        a=msid-semantic: WMS
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel
        c=IN IP4 0.0.0.0
        a=candidate:842163049 1 udp 2113937151 .local 50000 typ host generation 0 network-cost 999
        a=ice-ufrag:
        a=ice-pwd:
        a=ice-options:trickle
        a=fingerprint:sha-256 
        a=setup:actpass
        a=mid:0
        a=sctp-port:5000
        a=max-message-size:262144

        """

    /// Messages as they are sent.
    private static let messages = #"""
        {"type":"ice-candidate","from":"alice","to":"bob","room":"","candidate":{"candidate":"candidate:842163049 1 udp 1677729535 192.0.2.1 50000 typ srflx raddr 0.0.0.0 rport 0 generation 0 ufrag network-id 1 network-cost 999","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":""}}
        {"type":"answer","sdp":"v=0\r\no=- 4611686018427387904 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n","connectionMode":"normal","sessionToken":"session-"}
        {"type":"offer","from":"","to":"","sdp":"
        """#
}
