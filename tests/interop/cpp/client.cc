// Calls in a loop over several servers, with stock gRPC C++: client HOST:PORT,HOST:PORT
//
// Prints `server ID` for each that answers for the first time and `failed: ...` for each call that fails. Ends with its stdin.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <iostream>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "grpc/testing/test.grpc.pb.h"

using grpc::testing::SimpleRequest;
using grpc::testing::SimpleResponse;
using grpc::testing::TestService;

int main(int, char** argv) {
  grpc::ChannelArguments options;
  // C-core would send the list of addresses as `:authority`, and HTTP/2 servers refuse it.
  options.SetString("grpc.default_authority", "interop");
  // Calls go to all addresses in turn, and move on when a server leaves.
  options.SetServiceConfigJSON(R"({"loadBalancingConfig": [{"round_robin": {}}]})");
  auto channel = grpc::CreateCustomChannel(std::string("ipv4:") + argv[1], grpc::InsecureChannelCredentials(), options);
  auto client = TestService::NewStub(channel);

  std::atomic<bool> stopped{false};
  std::atomic<long> calls{0}, failed{0};
  std::mutex output;
  std::set<std::string> seen;
  auto caller = [&] {
    while (!stopped) {
      grpc::ClientContext context;
      // A call without a deadline may wait for ever.
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
      SimpleRequest request;
      request.set_fill_server_id(true);
      request.set_response_size(100);
      SimpleResponse response;
      grpc::Status status = client->UnaryCall(&context, request, &response);
      ++calls;
      std::lock_guard<std::mutex> lock(output);
      if (!status.ok()) {
        ++failed;
        std::cout << "failed: " << status.error_code() << " " << status.error_message() << std::endl;
      } else if (seen.insert(response.server_id()).second) {
        std::cout << "server " << response.server_id() << std::endl;
      }
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) callers.emplace_back(caller);
  for (std::string line; std::getline(std::cin, line);) {
  }
  stopped = true;
  for (auto& each : callers) each.join();
  std::cout << "calls " << calls << " failed " << failed << std::endl;
}
