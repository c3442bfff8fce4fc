/** One task: listen, at a socket that another process lends where there is one. */
import type { ListenOptions, Server } from 'node:net';

/** A socket that listens already: another process's, or one that the operating system's service manager opened. */
export type Inherited = Server | { readonly fd: number };

/** Looks for one at `port`; null: there is none, listen as usual. */
export type Inherit = (port: number) => Promise<Inherited | null>;

/** Resolves once `server` listens. @throws the error of listen(), as EADDRINUSE */
export async function listenAt(server: Server, options: ListenOptions, inherit?: Inherit): Promise<void> {
  // Port 0 is another one each time.
  const inherited = options.port === undefined || options.port === 0 ? null : await inherit?.(options.port);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    // A lent socket accepts already: nothing may be waited for in between.
    server.listen(inherited ?? options, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
