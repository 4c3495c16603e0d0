// Calls in a loop over several servers, with stock grpc-go: main HOST:PORT,HOST:PORT
//
// Prints `server ID` for each that answers for the first time and `failed: ...` for each call that fails. Ends with its stdin.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

func main() {
	servers := manual.NewBuilderWithScheme("static")
	var addresses []resolver.Address
	for _, address := range strings.Split(os.Args[1], ",") {
		addresses = append(addresses, resolver.Address{Addr: address})
	}
	servers.InitialState(resolver.State{Addresses: addresses})
	conn, err := grpc.NewClient("static:///interop",
		grpc.WithResolvers(servers),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Calls go to all addresses in turn, and move on when a server leaves.
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	client := pb.NewTestServiceClient(conn)

	var seen sync.Map
	var calls, failed atomic.Int64
	var stopped atomic.Bool
	var callers sync.WaitGroup
	for range 8 {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for !stopped.Load() {
				// A call without a deadline may wait for ever.
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				response, err := client.UnaryCall(ctx, &pb.SimpleRequest{FillServerId: true, ResponseSize: 100})
				cancel()
				calls.Add(1)
				if err != nil {
					failed.Add(1)
					fmt.Println("failed:", err)
				} else if _, known := seen.LoadOrStore(response.ServerId, true); !known {
					fmt.Println("server", response.ServerId)
				}
			}
		}()
	}
	for stdin := bufio.NewScanner(os.Stdin); stdin.Scan(); {
	}
	stopped.Store(true)
	callers.Wait()
	fmt.Printf("calls %d failed %d\n", calls.Load(), failed.Load())
}
