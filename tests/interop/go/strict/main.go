// Asks a service in strict mode whether it is healthy, with stock grpc-go: strict HOST:PORT SERVICE CA [TLS_DIR]
//
// CA is the file of those whose certificates we believe, TLS_DIR the folder of our own. Prints the health, or why there is none.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	health "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	address, service, ca := os.Args[1], os.Args[2], os.Args[3]
	pem, err := os.ReadFile(ca)
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(pem)
	if len(os.Args) > 4 {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			// For each connection: certificates are renewed.
			certificate, err := tls.LoadX509KeyPair(filepath.Join(os.Args[4], "cert.pem"), filepath.Join(os.Args[4], "key.pem"))
			return &certificate, err
		}
	}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		// Also the name that the server's certificate must have.
		grpc.WithAuthority(service))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	response, err := health.NewHealthClient(conn).Check(ctx, &health.HealthCheckRequest{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(response.Status)
}
