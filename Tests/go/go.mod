module tests

go 1.19

require reconnect v0.0.0

replace reconnect => ../../bindings/go
