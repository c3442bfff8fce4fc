/** One task: the least a Node program can do between a client and a server: what a proxy adds is measured against it. */
import { connect, createServer } from 'node:net';
import { LOOPBACK } from '../src/dev/ports.js';

const [, , host = LOOPBACK, serverPort = '', ownPort = ''] = process.argv;

createServer({ noDelay: true }, (near) => {
  const far = connect({ host, port: Number(serverPort), noDelay: true });
  near.pipe(far).pipe(near);
  near.on('error', () => far.destroy());
  far.on('error', () => near.destroy());
}).listen(Number(ownPort), LOOPBACK);
