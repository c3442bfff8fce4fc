/** One task: find the settings that the messages of a batch changed, once a server has confirmed that some were. */
import { CLIENT_RULES, FRONTEND } from '../wire/codes.js';
import { FrameScanner } from '../wire/frames.js';
import { readBind, readExecute, readParse, readParseText, readQuery } from '../wire/frontend.js';
import { settingChanges } from './set-statement.js';
import type { SettingChange } from './settings.js';

/**
 * The changes in the order they were made.
 *
 * @param preparedText the SQL of a statement that was prepared before this batch
 * @returns null when a text could not be read
 */
export function changesInBatch(
  batch: Buffer,
  preparedText: (name: string) => string | undefined,
): readonly SettingChange[] | null {
  const scanner = new FrameScanner(CLIENT_RULES);
  scanner.feed(batch);
  const changes: SettingChange[] = [];
  const statements = new Map<string, string>();
  const portals = new Map<string, string>();
  const textOf = (statement: string): string => statements.get(statement) ?? preparedText(statement) ?? '';
  while (scanner.peek()) {
    const { type, start, end } = scanner;
    const { buffer } = scanner;
    let executed: string | undefined;
    if (scanner.continued || end - start < scanner.length) return null;
    if (type === FRONTEND.query) executed = readQuery(buffer, start, end);
    else if (type === FRONTEND.parse) {
      const { name, bodyAt } = readParse(buffer, start, end);
      statements.set(name, readParseText(buffer, bodyAt, end));
    } else if (type === FRONTEND.bind) {
      const { portalEnd, statementEnd } = readBind(buffer, start, end);
      const portal = buffer.toString('utf8', start + 5, portalEnd);
      portals.set(portal, textOf(buffer.toString('utf8', portalEnd + 1, statementEnd)));
    } else if (type === FRONTEND.execute) executed = portals.get(readExecute(buffer, start, end)) ?? '';
    if (executed !== undefined) {
      const found = settingChanges(executed);
      if (found === null) return null;
      changes.push(...found);
    }
    scanner.consume();
  }
  return changes;
}
