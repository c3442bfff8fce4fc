/** One task: the least a Node program can do between a client and a server: what a proxy adds is measured against it. */
import { connect, createServer, type AddressInfo } from 'node:net';
import { LOOPBACK } from '../src/dev/ports.js';
import { listening } from '../src/cli/demo/own-process.js';

const [, , host = LOOPBACK, port = ''] = process.argv;

const server = createServer({ noDelay: true }, (near) => {
  const far = connect({ host, port: Number(port), noDelay: true });
  near.pipe(far).pipe(near);
  near.on('error', () => far.destroy());
  far.on('error', () => near.destroy());
});
server.listen(0, LOOPBACK, () => {
  listening((server.address() as AddressInfo).port, () => {
    server.close();
    return Promise.resolve();
  });
});
