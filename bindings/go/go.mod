module reconnect

go 1.19
