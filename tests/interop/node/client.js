// Calls in a loop over several servers, with stock grpc-js: client.js TEST_PROTO HOST:PORT,HOST:PORT
//
// Prints `server ID` for each that answers for the first time and `failed: ...` for each call that fails. Ends with its stdin.
const grpc = require('@grpc/grpc-js');
const { loadSync } = require('@grpc/proto-loader');

const [proto, addresses] = process.argv.slice(2);
const { TestService } = grpc.loadPackageDefinition(loadSync(proto, { keepCase: true })).grpc.testing;
const client = new TestService(`ipv4:${addresses}`, grpc.credentials.createInsecure(), {
  // grpc-js would send the list of addresses as `:authority`, and HTTP/2 servers refuse it.
  'grpc.default_authority': 'interop',
  // Calls go to all addresses in turn, and move on when a server leaves.
  'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
});

let stopped = false;
let calls = 0;
let failed = 0;
const seen = new Set();

// A call without a deadline may wait for ever.
const call = () => new Promise((resolve, reject) => {
  const request = { fill_server_id: true, response_size: 100 };
  client.UnaryCall(request, { deadline: Date.now() + 10_000 }, (error, response) =>
    error ? reject(error) : resolve(response.server_id));
});

async function caller() {
  while (!stopped) {
    calls += 1;
    try {
      const server = await call();
      if (!seen.has(server)) {
        seen.add(server);
        console.log('server', server);
      }
    } catch (error) {
      failed += 1;
      console.log('failed:', error.message);
    }
  }
}

process.stdin.resume();
process.stdin.on('end', () => { stopped = true; });
Promise.all(Array.from({ length: 8 }, caller)).then(() => {
  console.log(`calls ${calls} failed ${failed}`);
  client.close();
});
