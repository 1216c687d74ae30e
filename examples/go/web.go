package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"reconnect"
)

// largestOffer is the limit of a request's body.
const largestOffer = 64 << 10

// web serves the page and takes offers.
type web struct {
	engine *reconnect.Engine
	page   []byte
	origin string // the other origin that may ask
	// channels that every peer gets without an announcement
	channels []reconnect.ChannelConfig
}

func (w *web) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	if w.origin != "" {
		response.Header().Add("Vary", "Origin")
		if request.Header.Get("Origin") == w.origin {
			response.Header().Set("Access-Control-Allow-Origin", w.origin)
		}
	}
	switch request.URL.Path {
	case "/":
		w.get(response, request, "text/html; charset=utf-8", w.page)
	case "/ping":
		w.get(response, request, "text/plain; charset=utf-8", []byte("pong"))
	case "/offer":
		switch request.Method {
		case http.MethodPost:
			w.offer(response, request)
		case http.MethodOptions:
			w.preflight(response)
		default:
			refuseMethod(response, "OPTIONS, POST")
		}
	default:
		refuse(response, http.StatusNotFound, "NOT_FOUND", "there are /, /ping and /offer")
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

// preflight lets pages of the other origin ask; browsers stop those of any further origin, to which the header
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
	header.Set("Cache-Control", "no-store")
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
