// Read by no build (GO111MODULE=off); it only lets import paths ending in /v3
// resolve to packages in GOPATH.
module pionpeers

go 1.19
