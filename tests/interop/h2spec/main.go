// Runs h2spec's cases, strict ones included, against one server, and prints a line for each: outcome, id, description.
// `.ci/peers` builds it with a copy of h2spec whose requests are gRPC's instead of a browser's.
package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: h2spec HOST:PORT OUTCOMES")
	}
	host, port, err := net.SplitHostPort(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		log.Fatal(err)
	}
	outcomes, err := os.Create(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	c := &config.Config{
		Host: host,
		Port: number,
		// It answers a request without messages with one message, so that there is DATA to look at.
		Path:         "/grpc.testing.TestService/StreamingInputCall",
		Timeout:      2 * time.Second,
		MaxHeaderLen: 4000,
		Strict:       true,
	}
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		group.Test(c)
		print(outcomes, group)
	}
	if err := outcomes.Close(); err != nil {
		log.Fatal(err)
	}
}

func print(outcomes *os.File, group *spec.TestGroup) {
	for index, test := range append(group.Tests, group.StrictTests...) {
		outcome, reason := "missing", ""
		if result := test.Result; result != nil {
			outcome = "passed"
			if result.Skipped {
				outcome = "skipped"
			}
			if result.Failed {
				outcome = "failed"
				reason = ": " + strings.ReplaceAll(result.Error.Error(), "\n", ", ")
			}
		}
		fmt.Fprintf(outcomes, "%s\t%s/%d\t%s%s\n", outcome, group.ID(), index+1, test.Desc, reason)
	}
	for _, inner := range group.Groups {
		print(outcomes, inner)
	}
}
