/** One task: take the socket that systemd listens at for this service: its clients wait there while one process ends and the next one starts. */
import { CutoverError } from './errors/errors.js';
import type { Inherit } from './proxy/inherited.js';

/** sd_listen_fds(3): the first descriptor behind standard input, output and error. */
const FIRST = 3;

/**
 * The socket as `LISTEN_PID` and `LISTEN_FDS` describe it, for whoever listens first, which is the proxy; undefined where systemd gave none. Takes both
 * variables away: what this process starts is not meant.
 *
 * @throws CutoverError `environment_invalid` for more than one socket
 */
export function activated(): Inherit | undefined {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = process.env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) Reflect.deleteProperty(process.env, name);
  if (pid !== process.pid.toString() || count === undefined) return undefined;
  if (count !== '1')
    throw new CutoverError('environment_invalid', {
      variable: 'LISTEN_FDS',
      problem: `${count} sockets were given, and one is taken: the clients' port`,
    });
  let socket: { readonly fd: number } | null = { fd: FIRST };
  return () => {
    const taken = socket;
    socket = null;
    return Promise.resolve(taken);
  };
}
