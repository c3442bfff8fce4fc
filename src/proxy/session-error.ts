/** One task: say of anything that went wrong in a session which error of the table it is, and whether it ends the session. */
import type { Config } from '../config/config.js';
import { CutoverError, messageOf } from '../errors/errors.js';
import { FrameError } from '../wire/frames.js';

/** `internal` for what nobody foresaw. */
export function sessionError(error: unknown): CutoverError {
  if (error instanceof CutoverError) return error;
  if (error instanceof FrameError) return new CutoverError('protocol_violation', { problem: error.message });
  return new CutoverError('internal', { problem: messageOf(error) }, { cause: error });
}

/** Whether a client that gets no server is sent away, as `client_connection_recovery` says; one that waits at a closed gate never is. */
export function endsClient({ code }: CutoverError, { general }: Config): boolean {
  const ofPool = code === 'checkout_timeout' || code === 'server_unreachable';
  return ofPool && general.clientConnectionRecovery === 'drop';
}
