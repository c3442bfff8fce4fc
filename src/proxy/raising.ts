/** One task: make the statement that is sent in the place of one that is refused. */
import type { CutoverError } from '../errors/errors.js';

/**
 * A statement that fails at the server as the refused one would have failed: an open transaction is aborted, what follows in a
 * batch is skipped, and the session goes on. The words go as hexadecimal digits, whatever the settings of the session are.
 */
export function raising(error: CutoverError): string {
  const literal = (text: string): string =>
    `pg_catalog.convert_from(pg_catalog.decode('${Buffer.from(text).toString('hex')}', 'hex'), 'UTF8')`;
  return (
    'DO LANGUAGE plpgsql $cutover$BEGIN RAISE EXCEPTION USING ' +
    `ERRCODE = '${error.sqlstate}', MESSAGE = ${literal(error.message)}, HINT = ${literal(error.remedy)}; END$cutover$`
  );
}
