/** One task: open a server connection of a pool, in as many attempts as its options allow. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { PoolOptions } from './pool-options.js';
import { ServerConnection } from './server-connection.js';
import { logIn } from './server-login.js';

/**
 * Connects and logs in.
 *
 * @param wanted asked before every further attempt
 * @throws Error of the last attempt
 */
export async function openServer(options: PoolOptions, wanted: () => boolean): Promise<ServerConnection> {
  const { endpoint, connectTimeoutMs, connectAttempts, connectAttemptDelayMs } = options;
  for (let attempt = 1; ; attempt += 1) {
    try {
      const login = await logIn(endpoint, connectTimeoutMs, options.serverSettings);
      const server = new ServerConnection(login, endpoint, options.preparedStatementsLimit);
      // Else whoever waits would have the next one opened at once, without an end.
      if (!server.usable) throw new Error('what the server sent behind its login breaks the protocol');
      return server;
    } catch (error) {
      if (attempt >= connectAttempts || !wanted()) throw error;
    }
    await sleep(connectAttemptDelayMs, undefined, { ref: false });
  }
}
