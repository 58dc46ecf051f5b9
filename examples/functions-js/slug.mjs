// A title as it stands in an address.
export function slug(title) {
  console.log('making a slug of', title);
  return title
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}
