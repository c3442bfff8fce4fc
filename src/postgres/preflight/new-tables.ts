/** One task: the check that a side which has moved away can refuse new tables, which only a superuser can have it do. */
import { bothSides, ok, rowOf, warning } from './check.js';
import type { PreflightCheck } from './check.js';

/** Why a superuser, and what is seen without one: src/postgres/new-tables.ts, docs/decisions/0017. */
export const newTables: PreflightCheck = {
  id: 'new-tables',
  title: 'New tables are refused on the side that has moved away',
  async run(context) {
    if (context.config.cutover.fence === 'off') return ok('The fence is off.');
    const plain: string[] = [];
    for (const side of bothSides(context)) {
      const { superuser } = await rowOf<{ superuser: boolean }>(
        side,
        'SELECT rolsuper AS superuser FROM pg_roles WHERE rolname = current_user',
      );
      if (!superuser) plain.push(side.role);
    }
    if (plain.length === 0) return ok('They are, on both sides.');
    return warning(
      `The schema_admin of the ${plain.join(' and of the ')} is no superuser, so it cannot make the event trigger that refuses a table ` +
        'made there once the traffic has moved away: such a table takes writes that nobody reads.',
      'Have nobody make tables past the proxy from the switch until the migration is finalized, or use a superuser.',
    );
  },
};
