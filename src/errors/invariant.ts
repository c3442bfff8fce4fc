/** One task: stop a programmer's mistake at the moment it is made. Assertions stay on in production. */

/** Raised when the program contradicts itself; never caused by an operator's input. */
export class InvariantViolation extends Error {
  override readonly name = 'InvariantViolation';
}

/**
 * Asserts a condition that cannot be false unless the program is wrong.
 *
 * @param condition what must hold
 * @param message what it means when it does not, as a sentence
 * @throws InvariantViolation when the condition is falsy
 */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantViolation(message);
}

/** Makes a switch over a union exhaustive: the call does not compile while a case is missing. */
export function unreachable(value: never): never {
  throw new InvariantViolation(`unreachable case: ${JSON.stringify(value)}`);
}
