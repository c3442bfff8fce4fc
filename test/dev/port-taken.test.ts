/** One task: prove that a cluster starts although the port found for it was taken by somebody else a moment later. */
import { createServer, type Server } from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import { startCluster } from '../../src/dev/embedded-postgres.js';
import { freePort, LOOPBACK } from '../../src/dev/ports.js';

vi.mock('../../src/dev/ports.js', { spy: true });

let squatter: Server | undefined;

afterEach(() => {
  squatter?.close();
});

test('a port that was taken in between costs another port, not the cluster', async () => {
  const taken = await freePort();
  squatter = createServer();
  await new Promise<void>((resolve) => squatter?.listen(taken, LOOPBACK, resolve));
  vi.mocked(freePort).mockResolvedValueOnce(taken);
  const cluster = await startCluster({ major: 18 });
  expect(cluster.port).not.toBe(taken);
  expect(await cluster.query('postgres', 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  await cluster.remove();
});
