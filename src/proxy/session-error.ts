/** One task: say of anything that went wrong in a session which error of the table it is. */
import { CutoverError, messageOf } from '../errors/errors.js';
import { FrameError } from '../wire/frames.js';

/** `internal` for what nobody foresaw. */
export function sessionError(error: unknown): CutoverError {
  if (error instanceof CutoverError) return error;
  if (error instanceof FrameError) return new CutoverError('protocol_violation', { problem: error.message });
  return new CutoverError('internal', { problem: messageOf(error) }, { cause: error });
}
