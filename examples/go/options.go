package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"reconnect"
)

const usage = `usage: answerer-go [OPTION]...

Serves the example page, answers WebRTC offers and echoes every message.

  --http HOST:PORT          where to serve HTTP (default 127.0.0.1:8080); IPv6 as [::1]:8080; port 0: any free one
  --udp PORT                UDP port for all peers (default 0: any free one)
  --address ADDR            IP address to offer, repeatable (default: those of the machine's interfaces)
  --certificate FILE        PEM file for key and certificate, made if missing (default: a new one at every start)
  --certificate-days N      replace the certificate at this age (default 30; 0: never)
  --cors ORIGIN             another origin whose pages may send offers, repeatable (default: the same host only)
  --page FILE               the page (default: examples/page/index.html of the source tree)
  --lite                    ICE Lite: only answer checks; for public addresses
  --negotiated ID           also open a pre-negotiated channel with this id on each peer

Coming back:
  --session-store URL       where sessions are kept: sqlite:PATH, redis://..., rediss://..., redis+unix:PATH
                            (default: in memory)
  --ticket-secret-file FILE 32 to 256 bytes that servers share to accept each other's tickets (they share the
                            certificate too); given twice: first the new one, then the old one
  --no-tickets              no returning without signaling
  --fast-reload on|off|partial
                            the kill switch (default on)
  --fast-timeout MS         a fast answer that has not connected by then has failed (default 2000)
  --trip-window MS          fast reload switches itself off by what happens in this time (default 60000)
  --trip-failure PERCENT    ... if more fast connects fail (default 30)
  --trip-unstable PERCENT   ... or end by an error within 10 s (default 20)
  --trip-min N              ... of at least so many (default 20)
  --trip-rearm MS           ... and tries again after this time (default 60000)

Addresses:
  --stun HOST:PORT          STUN server that tells the address outside, repeatable
  --public ADDR[:PORT]      address outside, repeatable; IPv6 with a port as [2001:db8::1]:4000
  --interfaces LIST         also offer addresses that are: temporary,deprecated,bridges,loopback

  --help                    this text

Environment, for what no option says: ENABLE_FAST_RELOAD (true, false, partial), STUN_URLS and ALLOWED_ORIGINS (both
separated by commas; the latter adds to --cors), REDIS_URL, ICE_MODE (turn-only, all), TURN_URLS with TURN_USERNAME and
TURN_PASSWORD, or with TURN_SECRET.
Paths: /, /reconnect.js, /ping, /metrics, POST /offer.
Signals: SIGHUP replaces the certificate, SIGUSR1 switches fast reload off, SIGUSR2 on.
`

type options struct {
	http, page string
	origins    []string
	fastReload *reconnect.FastReload
	config     reconnect.Config
}

// list is a flag that may be given several times.
type list struct {
	values *[]string
	check  func(string) error
}

func (l list) String() string { return "" }

func (l list) Set(text string) error {
	if l.check != nil {
		if err := l.check(text); err != nil {
			return err
		}
	}
	*l.values = append(*l.values, text)
	return nil
}

func isAddress(text string) error {
	if _, err := netip.ParseAddr(text); err != nil {
		return errors.New("it is not an IP address")
	}
	return nil
}

func isPublic(text string) error {
	if _, err := netip.ParseAddrPort(text); err == nil {
		return nil
	}
	return isAddress(text)
}

func isServer(text string) error {
	_, port, err := net.SplitHostPort(strings.TrimPrefix(text, "stun:"))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return errors.New("it is not HOST:PORT")
	}
	return nil
}

func isSecretFile(text string) error {
	secret, err := os.ReadFile(text)
	if err != nil {
		return err
	}
	if len(secret) < 32 || len(secret) > 256 {
		return errors.New("it must have 32 to 256 bytes")
	}
	return nil
}

// number is a flag that takes an integer from 0 up to most.
type number struct {
	most uint64
	set  func(uint64)
}

func (n number) String() string { return "" }

func (n number) Set(text string) error {
	value, err := strconv.ParseUint(text, 10, 64)
	if err != nil || value > n.most {
		return fmt.Errorf("it is not a number from 0 to %d", n.most)
	}
	n.set(value)
	return nil
}

func milliseconds(to *time.Duration) number {
	return number{math.MaxUint32, func(value uint64) { *to = time.Duration(value) * time.Millisecond }}
}

func count(most uint64, to *uint32) number {
	return number{most, func(value uint64) { *to = uint32(value) }}
}

// word is a flag that calls a function.
type word func(string) error

func (w word) String() string { return "" }

func (w word) Set(text string) error { return w(text) }

func parse(arguments []string) (*options, error) {
	set := flag.NewFlagSet("answerer-go", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	o := &options{}
	c := &o.config
	var secrets []string
	channels := []reconnect.ChannelConfig{{Label: "echo", Negotiated: true, ID: 1}}
	set.StringVar(&o.http, "http", "127.0.0.1:8080", "")
	set.Var(number{65535, func(value uint64) { c.Port = uint16(value) }}, "udp", "")
	set.Var(list{&c.Addresses, isAddress}, "address", "")
	set.StringVar(&c.CertificatePath, "certificate", "", "")
	set.Var(number{36500, func(value uint64) {
		if c.CertificateDays = uint32(value); value == 0 {
			c.CertificateDays = reconnect.CertificateForever
		}
	}}, "certificate-days", "")
	set.Var(list{&o.origins, nil}, "cors", "")
	set.StringVar(&o.page, "page", "", "")
	lite := set.Bool("lite", false, "")
	set.Var(word(func(text string) error {
		id, err := strconv.ParseUint(text, 10, 16)
		if err != nil || id == 1 || id == 65535 {
			return errors.New("it is not an id from 0 to 65534 other than 1")
		}
		channels = append(channels[:1], reconnect.ChannelConfig{Label: "negotiated", Negotiated: true, ID: uint16(id)})
		return nil
	}), "negotiated", "")

	set.StringVar(&c.SessionStore, "session-store", "", "")
	set.Var(list{&secrets, isSecretFile}, "ticket-secret-file", "")
	set.BoolVar(&c.DisableTickets, "no-tickets", false, "")
	set.Var(word(func(text string) error {
		for _, setting := range []reconnect.FastReload{
			reconnect.FastReloadOff, reconnect.FastReloadOn, reconnect.FastReloadPartial,
		} {
			if text == setting.String() {
				setting := setting
				o.fastReload = &setting
				return nil
			}
		}
		return errors.New("it is not on, off or partial")
	}), "fast-reload", "")
	set.Var(milliseconds(&c.FastTimeout), "fast-timeout", "")
	set.Var(milliseconds(&c.Trip.Window), "trip-window", "")
	set.Var(count(100, &c.Trip.FailurePercent), "trip-failure", "")
	set.Var(count(100, &c.Trip.UnstablePercent), "trip-unstable", "")
	set.Var(count(math.MaxUint32, &c.Trip.MinAttempts), "trip-min", "")
	set.Var(milliseconds(&c.Trip.Rearm), "trip-rearm", "")

	set.Var(list{&c.STUNServers, isServer}, "stun", "")
	set.Var(list{&c.PublicAddresses, isPublic}, "public", "")
	set.Var(word(func(text string) error {
		for _, name := range strings.Split(text, ",") {
			bit, known := map[string]reconnect.Interfaces{
				"temporary": reconnect.InterfacesTemporary, "deprecated": reconnect.InterfacesDeprecated,
				"bridges": reconnect.InterfacesBridges, "loopback": reconnect.InterfacesLoopback,
			}[name]
			if !known {
				return errors.New("there are temporary, deprecated, bridges and loopback")
			}
			c.Interfaces |= bit
		}
		return nil
	}), "interfaces", "")

	if err := set.Parse(arguments); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("there is nothing to do with %q", set.Arg(0))
	}
	if isServer(o.http) != nil {
		return nil, fmt.Errorf("--http takes HOST:PORT, not %q", o.http)
	}
	if len(secrets) > 2 {
		return nil, errors.New("--ticket-secret-file can be given twice at most")
	}
	for i, path := range secrets {
		secret, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		*[]*[]byte{&c.TicketSecret, &c.OldTicketSecret}[i] = secret
	}
	if *lite {
		c.ICEMode = reconnect.ICELite
	}
	// What a peer gets that was answered, one gets too that comes back with a ticket.
	c.ReturningPeer.Channels = channels
	for _, origin := range strings.Split(os.Getenv("ALLOWED_ORIGINS"), ",") {
		if origin = strings.TrimSpace(origin); origin != "" {
			o.origins = append(o.origins, origin)
		}
	}
	return o, nil
}
