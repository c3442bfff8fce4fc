/** One task: the program that test/dev/guardian.test.ts interrupts: it starts servers, says so, and waits. */
import { startCluster } from '../../src/dev/embedded-postgres.js';
import { startTemporal } from '../../src/dev/temporal-dev-server.js';

const [cluster, temporal] = await Promise.all([startCluster({ major: 18 }), startTemporal()]);
console.log(JSON.stringify({ pids: [cluster.pid, temporal.pid], directory: cluster.directory }));
if (process.argv[2] === 'throw') throw new Error('an error that nobody catches');
setInterval(() => undefined, 1_000);
