/** One task: match names as pg_dump writes them: quoted only where they must be. */

/** the source of a regular expression for one name */
export const IDENTIFIER = String.raw`(?:"(?:[^"]|"")+"|[^\s".,;()]+)`;
/** a name with or without its schema */
export const QUALIFIED = `${IDENTIFIER}(?:\\.${IDENTIFIER})?`;
