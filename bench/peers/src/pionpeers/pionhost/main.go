// Pionhost answers data-channel offers over HTTP with pion, under the same
// command line and HTTP interface as the example hosts of this project.
//
//	--mode default   as pion's examples do it: a new certificate and new ports
//	                 for each connection, the answer waits for gathering,
//	                 DTLS role active
//	--mode tuned     one UDP port, one certificate, DTLS role passive, no wait
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v2"
	"github.com/pion/webrtc/v3"

	"pionpeers/measure"
)

const maximumOfferBytes = 256 << 10

type addressList []net.IP

func (list *addressList) String() string { return fmt.Sprint([]net.IP(*list)) }

func (list *addressList) Set(text string) error {
	address := net.ParseIP(text)
	if address == nil {
		return fmt.Errorf("%q is not an IP address", text)
	}
	*list = append(*list, address)
	return nil
}

func (list addressList) contains(address net.IP) bool {
	for _, wanted := range list {
		if wanted.Equal(address) {
			return true
		}
	}
	return false
}

func (list addressList) hasLoopback() bool {
	for _, address := range list {
		if address.IsLoopback() {
			return true
		}
	}
	return false
}

type host struct {
	api           *webrtc.API
	configuration webrtc.Configuration
	negotiated    int
}

type offer struct {
	Type         string `json:"type"`
	SDP          string `json:"sdp"`
	SessionToken string `json:"sessionToken"`
}

type answer struct {
	Type           string `json:"type"`
	SDP            string `json:"sdp"`
	ConnectionMode string `json:"connectionMode"`
	SessionToken   string `json:"sessionToken"`
}

func main() {
	httpAddress := flag.String("http", "127.0.0.1:8080", "`HOST:PORT` for HTTP")
	udpPort := flag.Int("udp", 0, "UDP `port` (tuned mode; 0: any)")
	certificateFile := flag.String("certificate", "", "PEM `file` of the certificate, made if absent (tuned mode)")
	cors := flag.String("cors", "", "`origin` that may call from another origin")
	mode := flag.String("mode", "default", "default or tuned")
	negotiated := flag.Int("negotiated", -1, "also echo on a pre-negotiated channel with this `id`")
	var addresses addressList
	flag.Var(&addresses, "address", "`address` to offer as a host candidate (repeatable; default: all)")
	flag.Parse()

	answerer, err := newHost(*mode, *udpPort, addresses, *certificateFile)
	if err != nil {
		measure.Fail("%v", err)
	}
	answerer.negotiated = *negotiated

	listener, err := net.Listen("tcp", *httpAddress)
	if err != nil {
		measure.Fail("%v", err)
	}
	fmt.Printf("listening on http://%s/\n", listener.Addr())
	measure.Fail("%v", http.Serve(listener, answerer.handler(*cors)))
}

func newHost(mode string, udpPort int, addresses addressList, certificateFile string) (*host, error) {
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(addresses.hasLoopback())
	if len(addresses) > 0 {
		settings.SetIPFilter(addresses.contains)
	}
	result := &host{}
	switch mode {
	case "default":
	case "tuned":
		mux, err := onePort(addresses, udpPort)
		if err != nil {
			return nil, err
		}
		settings.SetICEUDPMux(mux)
		settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
		if err := settings.SetAnsweringDTLSRole(webrtc.DTLSRoleServer); err != nil {
			return nil, err
		}
		certificate, err := loadCertificate(certificateFile)
		if err != nil {
			return nil, err
		}
		result.configuration.Certificates = []webrtc.Certificate{*certificate}
	default:
		return nil, fmt.Errorf("--mode is default or tuned, not %q", mode)
	}
	result.api = webrtc.NewAPI(webrtc.WithSettingEngine(settings))
	return result, nil
}

// onePort binds one socket for each address, all on the same port.
func onePort(addresses addressList, port int) (ice.UDPMux, error) {
	if len(addresses) == 0 {
		return nil, errors.New("tuned mode needs at least one --address")
	}
	var muxes []ice.UDPMux
	for _, address := range addresses {
		connection, err := net.ListenUDP("udp", &net.UDPAddr{IP: address, Port: port})
		if err != nil {
			return nil, err
		}
		port = connection.LocalAddr().(*net.UDPAddr).Port
		muxes = append(muxes, ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: connection}))
	}
	return ice.NewMultiUDPMuxDefault(muxes...), nil
}

func loadCertificate(file string) (*webrtc.Certificate, error) {
	if file != "" {
		if pem, err := os.ReadFile(file); err == nil {
			return webrtc.CertificateFromPEM(string(pem))
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate, err := webrtc.GenerateCertificate(key)
	if err != nil || file == "" {
		return certificate, err
	}
	pem, err := certificate.PEM()
	if err != nil {
		return nil, err
	}
	return certificate, os.WriteFile(file, []byte(pem), 0o600)
}

func (h *host) handler(cors string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		if request.URL.Path != "/" {
			http.NotFound(response, request)
			return
		}
		response.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(response, "<!doctype html><title>pion</title>\n")
	})
	mux.HandleFunc("/ping", func(response http.ResponseWriter, request *http.Request) {
		response.Header().Set("Content-Type", "text/plain")
		io.WriteString(response, "pong")
	})
	mux.HandleFunc("/offer", h.serveOffer)
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if cors != "" {
			response.Header().Set("Access-Control-Allow-Origin", cors)
			response.Header().Set("Access-Control-Allow-Headers", "content-type")
		}
		if request.Method == http.MethodOptions {
			response.WriteHeader(http.StatusNoContent)
			return
		}
		mux.ServeHTTP(response, request)
	})
}

func (h *host) serveOffer(response http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodPost {
		http.Error(response, "POST an offer", http.StatusMethodNotAllowed)
		return
	}
	var message offer
	body := http.MaxBytesReader(response, request.Body, maximumOfferBytes)
	if err := json.NewDecoder(body).Decode(&message); err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	if message.Type != "offer" {
		http.Error(response, "type must be offer", http.StatusBadRequest)
		return
	}
	description, err := h.accept(message.SDP)
	if err != nil {
		http.Error(response, err.Error(), http.StatusBadRequest)
		return
	}
	response.Header().Set("Content-Type", "application/json")
	json.NewEncoder(response).Encode(answer{
		Type: "answer", SDP: description.SDP, ConnectionMode: "normal", SessionToken: newToken(),
	})
}

func newToken() string {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		measure.Fail("%v", err)
	}
	return "session-" + hex.EncodeToString(random[:])
}

func (h *host) accept(sdp string) (*webrtc.SessionDescription, error) {
	peer, err := h.api.NewPeerConnection(h.configuration)
	if err != nil {
		return nil, err
	}
	description, err := h.answer(peer, sdp)
	if err != nil {
		peer.Close()
		return nil, err
	}
	return description, nil
}

func (h *host) answer(peer *webrtc.PeerConnection, sdp string) (*webrtc.SessionDescription, error) {
	var once sync.Once
	leave := func() { once.Do(func() { go peer.Close() }) }
	// A peer that went away without a word, or never came.
	peer.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateDisconnected || state == webrtc.PeerConnectionStateFailed {
			leave()
		}
	})
	deadline := time.AfterFunc(30*time.Second, leave)
	peer.OnDataChannel(func(channel *webrtc.DataChannel) {
		deadline.Stop()
		echo(channel, leave)
	})
	if h.negotiated >= 0 && strings.Contains(sdp, "m=application") {
		yes, id := true, uint16(h.negotiated)
		channel, err := peer.CreateDataChannel("negotiated", &webrtc.DataChannelInit{Negotiated: &yes, ID: &id})
		if err != nil {
			return nil, err
		}
		channel.OnOpen(func() { deadline.Stop() })
		echo(channel, leave)
	}
	err := peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp})
	if err != nil {
		return nil, err
	}
	local, err := peer.CreateAnswer(nil)
	if err != nil {
		return nil, err
	}
	// With one shared port there is nothing to wait for: gathering is complete
	// as soon as it has begun.
	gathered := webrtc.GatheringCompletePromise(peer)
	if err := peer.SetLocalDescription(local); err != nil {
		return nil, err
	}
	<-gathered
	return peer.LocalDescription(), nil
}

func echo(channel *webrtc.DataChannel, leave func()) {
	channel.OnMessage(func(message webrtc.DataChannelMessage) {
		if message.IsString {
			channel.SendText(string(message.Data))
		} else {
			channel.Send(message.Data)
		}
	})
	channel.OnClose(leave)
}
