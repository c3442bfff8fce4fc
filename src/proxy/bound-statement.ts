/** One task: read which statement a Bind binds, and to which values. */
import type { StatementParameters } from '../sharding/router-parameters.js';
import { HEADER_BYTES } from '../wire/frames.js';
import { readBind, readBoundValues, readParseText, readParseTypes } from '../wire/frontend.js';
import type { ClientStatements } from './client-statements.js';
import type { Statement } from './statement-cache.js';

/** A statement of a sharded database is looked at whole: a longer Query or Bind is refused. */
export const TOO_LONG_BYTES = 16 * 1024 * 1024;

export interface BoundStatement {
  readonly text: string;
  readonly parameters: StatementParameters;
  /** by which its rows can be asked for later */
  readonly portal: string;
  /** where the Bind begins */
  readonly start: number;
  /** text and types as they stand in a Parse behind the name */
  readonly body: Buffer;
}

/**
 * @param bodies statements by name that are not the client's yet, before those that are; '' is the unnamed one
 * @returns null when there is no such statement: the server says so
 * @throws FrameError
 */
export function boundTo(
  buffer: Buffer,
  start: number,
  end: number,
  statements: ClientStatements,
  bodies?: ReadonlyMap<string, Buffer>,
): BoundStatement | null {
  const names = readBind(buffer, start, end);
  const name = buffer.toString('utf8', names.portalEnd + 1, names.statementEnd);
  const body = bodies?.get(name) ?? (name === '' ? statements.unnamed : null);
  const statement = body === null ? statements.get(name) : textAndTypes(body);
  if (statement === undefined) return null;
  const { text, types } = statement;
  const { formats, values } = readBoundValues(buffer, names, end);
  const portal = buffer.toString('utf8', start + HEADER_BYTES, names.portalEnd);
  return { text, parameters: { values, formats, types, utf8: true }, portal, start, body: statement.body };
}

function textAndTypes(body: Buffer): Pick<Statement, 'text' | 'types' | 'body'> {
  return { text: readParseText(body, 0, body.length), types: readParseTypes(body), body };
}
