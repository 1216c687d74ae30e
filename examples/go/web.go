package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"reconnect"
)

// largestOffer is the limit of a request's body.
const largestOffer = 64 << 10

// web serves the page and takes offers.
type web struct {
	engine  *reconnect.Engine
	page    []byte
	module  []byte   // the client for pages; nil: there is none
	tag     string   // the module's entity tag
	origins []string // the other origins that may ask
	// channels that every peer gets without an announcement
	channels []reconnect.ChannelConfig
}

func (w *web) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	origin := request.Header.Get("Origin")
	if len(w.origins) > 0 {
		response.Header().Add("Vary", "Origin")
		if w.knows(origin) {
			response.Header().Set("Access-Control-Allow-Origin", origin)
		}
	}
	switch request.URL.Path {
	case "/":
		w.get(response, request, "text/html; charset=utf-8", w.page)
	case "/reconnect.js":
		w.serveModule(response, request)
	case "/metrics":
		w.serveMetrics(response, request)
	case "/ping":
		w.get(response, request, "text/plain; charset=utf-8", []byte("pong"))
	case "/offer":
		switch request.Method {
		case http.MethodPost:
			if origin != "" && !w.knows(origin) && !isSameHost(origin, request.Host) {
				refuse(response, http.StatusForbidden, "ORIGIN_NOT_ALLOWED",
					"pages of this origin may not send offers; --cors or ALLOWED_ORIGINS allow it")
				return
			}
			w.offer(response, request)
		case http.MethodOptions:
			w.preflight(response)
		default:
			refuseMethod(response, "OPTIONS, POST")
		}
	default:
		refuse(response, http.StatusNotFound, "NOT_FOUND", "there are /, /reconnect.js, /ping, /metrics and /offer")
	}
}

func (w *web) get(response http.ResponseWriter, request *http.Request, kind string, body []byte) {
	switch request.Method {
	case http.MethodGet, http.MethodHead:
		send(response, http.StatusOK, kind, body)
	case http.MethodOptions:
		w.preflight(response)
	default:
		refuseMethod(response, "GET, HEAD, OPTIONS")
	}
}

// serveModule serves the client for pages. Browsers ask each time whether theirs is still the one.
func (w *web) serveModule(response http.ResponseWriter, request *http.Request) {
	if w.module == nil {
		refuse(response, http.StatusNotFound, "NOT_FOUND", "bindings/web/reconnect.js was not found")
		return
	}
	isRead := request.Method == http.MethodGet || request.Method == http.MethodHead
	if isRead {
		response.Header().Set("ETag", w.tag)
		response.Header().Set("Cache-Control", "no-cache")
	}
	if isRead && strings.Contains(request.Header.Get("If-None-Match"), w.tag) {
		response.WriteHeader(http.StatusNotModified)
		return
	}
	w.get(response, request, "text/javascript; charset=utf-8", w.module)
}

func (w *web) serveMetrics(response http.ResponseWriter, request *http.Request) {
	metrics, err := w.engine.Metrics()
	if err != nil {
		var failed *reconnect.Error
		errors.As(err, &failed)
		refuse(response, statusOf(failed), failed.Status.String(), detailOf(failed))
		return
	}
	w.get(response, request, reconnect.MetricsContentType, []byte(metrics))
}

// knows says whether an origin was allowed by name.
func (w *web) knows(origin string) bool {
	for _, each := range w.origins {
		if origin == each {
			return true
		}
	}
	return false
}

// isSameHost says whether a page's origin is on the host that the request was sent to.
func isSameHost(origin, host string) bool {
	parsed, err := url.Parse(origin)
	return err == nil && parsed.Host != "" && strings.EqualFold(parsed.Host, host)
}

// preflight lets pages of the other origins ask; browsers stop those of any further origin, to which the header
// with the origin is not sent.
func (w *web) preflight(response http.ResponseWriter) {
	if response.Header().Get("Access-Control-Allow-Origin") != "" {
		response.Header().Set("Access-Control-Allow-Methods", "GET, HEAD, POST")
		response.Header().Set("Access-Control-Allow-Headers", "Content-Type")
		response.Header().Set("Access-Control-Max-Age", "600")
	}
	response.WriteHeader(http.StatusNoContent)
}

// offer takes an offer and sends the answer. Every peer gets the channel "echo" with stream 1, which needs no
// announcement: a page that opens it likewise can send as soon as SCTP is up. The page is the DTLS client, so the
// channels that it announces have even streams (RFC 8832 section 6).
func (w *web) offer(response http.ResponseWriter, request *http.Request) {
	offer, err := io.ReadAll(http.MaxBytesReader(response, request.Body, largestOffer))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			refuse(response, http.StatusRequestEntityTooLarge, "TOO_LARGE", "an offer has at most 65536 bytes")
		} else {
			refuse(response, http.StatusBadRequest, "BAD_REQUEST", "the body did not come whole")
		}
		return
	}
	answer, err := w.engine.Answer(request.Context(), offer, &reconnect.PeerConfig{Channels: w.channels})
	var failed *reconnect.Error
	switch {
	case err == nil:
		send(response, http.StatusOK, "application/json", answer.JSON)
	case errors.As(err, &failed):
		refuse(response, statusOf(failed), failed.Status.String(), detailOf(failed))
	default: // the request's context has ended: nobody listens
	}
}

// statusOf: what the offer is to blame for is 400.
func statusOf(err *reconnect.Error) int {
	switch err.Status {
	case reconnect.StatusMalformedJSON, reconnect.StatusMalformedSDP, reconnect.StatusUnacceptable,
		reconnect.StatusInvalidArgument:
		return http.StatusBadRequest
	case reconnect.StatusLimit, reconnect.StatusInvalidHandle:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func detailOf(err *reconnect.Error) string {
	if err.Detail != "" {
		return err.Detail
	}
	return err.Status.Text()
}

func send(response http.ResponseWriter, status int, kind string, body []byte) {
	header := response.Header()
	header.Set("Content-Type", kind)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if header.Get("Cache-Control") == "" {
		header.Set("Cache-Control", "no-store")
	}
	header.Set("X-Content-Type-Options", "nosniff")
	response.WriteHeader(status)
	response.Write(body) // net/http leaves the body away for HEAD, and knows when the client is gone
}

func refuse(response http.ResponseWriter, status int, name, detail string) {
	body, err := json.Marshal(map[string]string{"error": name, "detail": detail})
	if err != nil {
		body = []byte(`{"error":"INTERNAL","detail":""}`)
	}
	send(response, status, "application/json", body)
}

func refuseMethod(response http.ResponseWriter, allowed string) {
	response.Header().Set("Allow", allowed)
	refuse(response, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "allowed are "+allowed)
}
