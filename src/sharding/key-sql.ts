/** One task: write sharding keys in SQL: the column, and constants of its type. */
import { quoteIdentifier, quoteLiteral } from '../postgres/connection.js';
import type { KeyType, KeyValue } from './scheme.js';

/**
 * The column, to be compared by value. Texts are compared by their bytes, whatever the collation of the column: the database's
 * own may order, or even equate, texts in another way than the mapping.
 */
export function keyColumn(column: string, type: KeyType): string {
  const name = quoteIdentifier(column);
  return type === 'varchar' ? `(${name}::text COLLATE "C")` : name;
}

/** A constant of the key's type. */
export function keyConstant(value: KeyValue, type: KeyType): string {
  switch (type) {
    case 'bigint':
      // In quotes: the bare smallest bigint would be read as the negative of a number too large (documentation, 4.1.2.6).
      return `'${value.toString()}'::bigint`;
    case 'uuid':
      return `${quoteLiteral(value.toString())}::uuid`;
    case 'varchar':
      return quoteLiteral(value.toString());
  }
}
