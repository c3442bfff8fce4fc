/** One task: give a test file a Temporal server of its own that ends with it. */
import { afterAll, beforeAll } from 'vitest';
import { startTemporal, type TemporalDevServer, type TemporalOptions } from '../../src/dev/temporal-dev-server.js';
import { invariant } from '../../src/errors/invariant.js';

/** Starts a dev server before the tests of the file (or of the `describe`) and stops it after; read it with the function. */
export function useTemporal(options: TemporalOptions = {}): () => TemporalDevServer {
  let server: TemporalDevServer | undefined;
  beforeAll(async () => {
    server = await startTemporal(options);
  });
  afterAll(async () => {
    await server?.stop();
  });
  return () => {
    invariant(server, 'the Temporal server is used before beforeAll has started it');
    return server;
  };
}
